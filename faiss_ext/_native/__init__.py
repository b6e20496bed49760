"""The native part: C++ and SWIG. `swigfaiss_ext` is the compiled module, where the
package was built with it; `_loader.native_part` tells whether it is in use."""
