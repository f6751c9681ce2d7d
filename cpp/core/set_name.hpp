// HR_JOIN(table_, HR_ISA) makes a name that ends in the name of an instruction set.
#pragma once

#define HR_JOIN_(a, b) a##b
#define HR_JOIN(a, b) HR_JOIN_(a, b)
