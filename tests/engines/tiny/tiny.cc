// The same engine, as C++.
#include "tiny.c"
