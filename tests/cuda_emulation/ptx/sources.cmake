# Computes the hash of all sources of the kernels, as a line of C++, or in a file. The script is run by
#     cmake -DROOT=<repository> -DINTO=<sources.inc> -P sources.cmake
file(GLOB_RECURSE sources RELATIVE "${ROOT}" "${ROOT}/cuda/kernels/*" "${ROOT}/cuda/include/*" "${ROOT}/cuda/host/*.hpp"
     "${ROOT}/cpp/core/*.hpp" "${ROOT}/cpp/math/*.hpp" "${ROOT}/cpp/steps/*.hpp")
list(APPEND sources tests/cuda_emulation/ptx/make)  # this script has nvcc's options
list(SORT sources)
set(all "")
foreach(source IN LISTS sources)
  file(SHA256 "${ROOT}/${source}" hash)
  string(APPEND all "${source} ${hash}\n")
endforeach()
string(SHA256 hash "${all}")
set(text "${hash}\n")
if(INTO MATCHES "\\.inc$")
  set(text "// The hash of the sources of this build.\nconstexpr const char* sources = \"${hash}\";\n")
endif()
if(EXISTS "${INTO}")
  file(READ "${INTO}" before)
endif()
if(NOT "${before}" STREQUAL "${text}")
  file(WRITE "${INTO}" "${text}")
endif()
