"""Every interpreter a test starts gets the same substitution as the worker that runs the test."""
import os

if os.environ.pop("CONFORMANCE_WORKER", None) is None and os.environ.get("CONFORMANCE_IMPL"):
    try:
        import conformance_subst
        conformance_subst.install(child=True)
    except BaseException as error:  # said, but never in the way of the interpreter's start
        import sys
        sys.stderr.write(f"conformance: substitution failed in child: {error!r}\n")
