"""rmm.pylibrmm.stream"""


class Stream:
    def __init__(self, obj=None):
        if not hasattr(obj, "__cuda_stream__"):
            raise TypeError(f"Cannot create stream from {type(obj)}")
        version, self.handle = obj.__cuda_stream__()
        assert version == 0
