import os
import sys

from distillbench import warm

if warm.VARIABLE in os.environ and sys.argv[1:2] and sys.argv[1] in warm.SERVED:
    warm.ask(sys.argv[1:])

from distillbench.commands import main

sys.exit(main())
