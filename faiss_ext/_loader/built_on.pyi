# Written when the native part is configured (built_on.py.in).

VERSION: str
DISTRIBUTION: str
FINGERPRINT: str
SWIG_TABLE: str
TAKES_LOADED_LIBRARY: bool
