#pragma once

/// Marks what the shared library offers; everything else is hidden.
#define FAISS_EXT_API __attribute__((visibility("default")))
