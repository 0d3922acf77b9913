"""The fence: every private name of Lightning, torch and jsonargparse that we use, in one place each.

Any release may rename them, many of them without an error here. Each function says what it is for, and the version in
which the name was read; ``tests/test_private_apis.py`` fails where it is gone. Methods that our classes override or
inherit stay with these classes; the same test lists them.
"""
