"""Grade a class: ``python book/assignments/grade.py a1 SUBMISSIONS --out REPORT``."""

import sys

from grading.batch import main

if __name__ == "__main__":
    sys.exit(main())
