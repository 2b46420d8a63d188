"""The functions behind ``import wsss``: photos and arrays in, arrays and pictures out.

No configuration, cache or manifest. Each module is imported when one of its names is first used.
"""
