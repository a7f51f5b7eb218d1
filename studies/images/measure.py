r"""Run one of the studies of images.

    python -m studies.images.measure nip studies/images/nip.yaml --data-folder FOLDER \
        --system mnist --out OUT --results FILE

The studies are ``nip`` (neuron-level inverse perturbation and other defences), ``spatial`` and
``elasticity`` (both with limits.yaml: where NIP is said to be weak), ``detection``, ``robustness``,
``backdoors``, ``screening`` and ``remote``, each with the plan of its name, and ``smallest``, with
that of ``detection``. New results are added to FILE, which keeps its other results. What takes long
is kept in OUT, where an interrupted run continues. A model without a purifier is measured without
guided NIP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from studies._lib.command import command, run
from studies.images.backdoors import backdoors
from studies.images.detection import detection
from studies.images.overlap import overlap
from studies.images.purification import elasticity, nip
from studies.images.remote import remote
from studies.images.robustness import robustness
from studies.images.screening import screening
from studies.images.setup import Setup
from studies.images.smallest import smallest
from studies.images.spatial import spatial

STUDIES: Mapping[str, Callable[[Setup], None]] = {
    "backdoors": backdoors,
    "detection": detection,
    "elasticity": elasticity,
    "nip": nip,
    "overlap": overlap,
    "remote": remote,
    "robustness": robustness,
    "screening": screening,
    "smallest": smallest,
    "spatial": spatial,
}


def main() -> None:
    """Run the study that the command line names."""
    parser = command(
        __doc__, needed=("out", "results"), paths=("data-folder", "purifier", "models")
    )
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("plan")
    parser.add_argument("--system", dest="name", required=True)
    parser.add_argument("--substitute", help="one of the plan's names; default: all of them")
    setup = Setup.read(**vars(parser.parse_args()))
    STUDIES[setup.study](setup)


if __name__ == "__main__":
    run(main)
