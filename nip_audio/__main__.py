"""``python -m nip_audio``."""

import sys

from nip_audio.cli import main

sys.exit(main())
