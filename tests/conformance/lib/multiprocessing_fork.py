"""test_multiprocessing_fork, which some installations of Python before 3.12 leave out."""
from test import _test_multiprocessing

_test_multiprocessing.install_tests_in_module_dict(globals(), "fork")
