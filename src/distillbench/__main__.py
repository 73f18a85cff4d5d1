import sys

from distillbench import warm

warm.ask(sys.argv[1:])

from distillbench.commands import main  # noqa: E402 (only where the job runs here)

sys.exit(main())
