from .adversarial_sets import AdversarialSet as AdversarialSet
from .config import EvaluationConfig as EvaluationConfig
from .config import read_config as read_config
from .report import write_report as write_report
from .robustness import RobustnessResult as RobustnessResult
from .robustness import measure_robustness as measure_robustness
from .runner import Runner as Runner
