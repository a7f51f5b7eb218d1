from .examine import examiner_of_run as examiner_of_run
from .examine import examiner_of_screening as examiner_of_screening
from .export import write_csv as write_csv
from .export import write_parquet as write_parquet
from .report import write_report as write_report
from .run import ScreenedRun as ScreenedRun
