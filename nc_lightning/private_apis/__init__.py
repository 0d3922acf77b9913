"""Every private name of Lightning, torch and jsonargparse that we use, each in one place.

Any release may rename them, often without an error here. Each docstring gives the purpose and the version in which the
name was checked; ``tests/test_private_apis.py`` fails if it is gone. Methods that our classes override or inherit
stay with these classes; the same test lists them.
"""
