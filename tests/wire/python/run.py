"""Runs the tests of this folder, all or those of the modules named, and prints how many passed and failed."""

import pathlib
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent


def main(names):
    sys.path.insert(0, str(HERE))
    names = names or sorted(path.stem for path in HERE.glob("test_*.py"))
    suite = unittest.defaultTestLoader.loadTestsFromNames(names)
    wanted = suite.countTestCases()
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    skipped = len(result.skipped)
    for test, why in result.skipped:
        print(f"skipped: {test.id()}: {why}")
    cases = [test for test, _ in result.failures + result.errors if isinstance(test, unittest.TestCase)]
    # A subtest counts as the test that it is part of.
    failed = len({getattr(case, "test_case", case).id() for case in cases})
    # The tests of a class whose server did not start were not run: they all count as failed.
    failed += wanted - result.testsRun
    print(f"{wanted - failed - skipped} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
