#pragma once

// Arithmetic with more bits than what is tested has.

namespace test {

/// 113 bits and a wide range, where the compiler has it; at least 64.
#ifdef __SIZEOF_FLOAT128__
__extension__ using Quad = __float128;
#else
using Quad = long double;
#endif

} // namespace test
