# Default architectures of _cuda: those of this machine's cards on which kernels run, and without a card a list that
# serves most cards. The file sets
#
#   cuda_cards                  where the driver shows the cards; empty where there is none
#   cuda_too_old                "Tesla T4 of compute capability 7.5": the cards, if kernels run on none of them
#   CMAKE_CUDA_ARCHITECTURES    unless it is set, or CUDAARCHS is
#
# This file runs before a compiler is enabled, because the compiler may refuse the card of this machine. Where nvidia-smi
# is missing, CMake finds the architectures after a compiler is enabled (`headrace_usable_architectures`).
set(HEADRACE_DEVICES /dev CACHE PATH "The folder of the cards' device files, for tests")
mark_as_advanced(HEADRACE_DEVICES)

set(headrace_least_capability 80)  # required by products of m16n8k8 in TF32
# Every toolkit supports these architectures. A release has the same list, because with 120-real _cuda is larger than
# .ci/wheel allows.
set(headrace_default_architectures 80-real 90-real 90-virtual)

# Selects from words such as "75-real" or "8.6" the architectures on which kernels run, as "86-real"; `text` becomes a
# list of all words, as "7.5, 8.6".
function(headrace_usable_architectures words usable text)
  set(found)
  set(all)
  foreach(word ${words})
    if(word MATCHES "^([0-9]+)\\.?([0-9])(-real|-virtual)?$")
      list(APPEND all "${CMAKE_MATCH_1}.${CMAKE_MATCH_2}")
      if("${CMAKE_MATCH_1}${CMAKE_MATCH_2}" GREATER_EQUAL headrace_least_capability)
        list(APPEND found "${CMAKE_MATCH_1}${CMAKE_MATCH_2}-real")
      endif()
    endif()
  endforeach()
  list(REMOVE_DUPLICATES found)
  list(REMOVE_DUPLICATES all)
  list(JOIN all ", " all)
  set(${usable} "${found}" PARENT_SCOPE)
  set(${text} "${all}" PARENT_SCOPE)
endfunction()

file(GLOB cuda_cards ${HEADRACE_DEVICES}/nvidia[0-9]* ${HEADRACE_DEVICES}/dxg)
set(cuda_too_old)
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  if(NOT cuda_cards)
    set(CMAKE_CUDA_ARCHITECTURES ${headrace_default_architectures})
  else()
    set(CMAKE_CUDA_ARCHITECTURES native)
    execute_process(COMMAND nvidia-smi --query-gpu=compute_cap,name --format=csv,noheader OUTPUT_VARIABLE listed
                    RESULT_VARIABLE failed ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
    if(failed STREQUAL "0" AND listed MATCHES "^[0-9]")
      string(REPLACE "\n" ";" lines "${listed}")
      list(TRANSFORM lines REPLACE ",.*" "" OUTPUT_VARIABLE capabilities)
      headrace_usable_architectures("${capabilities}" usable text)
      if(usable)
        set(CMAKE_CUDA_ARCHITECTURES ${usable})
      else()
        list(REMOVE_DUPLICATES lines)
        list(TRANSFORM lines REPLACE "^([0-9.]+), *(.*)$" "\\2 of compute capability \\1")
        list(JOIN lines ", " cuda_too_old)
      endif()
    endif()
  endif()
endif()
