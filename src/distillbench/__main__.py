import sys

from distillbench.commands import main

sys.exit(main())
