// Names that end in that of an instruction set: HR_JOIN(table_, HR_ISA).
#pragma once

#define HR_JOIN_(a, b) a##b
#define HR_JOIN(a, b) HR_JOIN_(a, b)
