import sys

from distillbench.cli import main

sys.exit(main())
