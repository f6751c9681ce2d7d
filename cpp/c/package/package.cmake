# The folders into which libheadrace, its headers and the files for other builds are installed: in the Python package,
# or in the system's folders. A build in place writes them directly to python/headrace.
set(package_folder ${PROJECT_BINARY_DIR})
if(HEADRACE_IN_PLACE)
  set(package_folder ${PROJECT_SOURCE_DIR}/python/headrace)
endif()
if(HEADRACE_PYTHON)
  set(library_folder headrace)
  set(include_folder headrace/include)
  set(cmake_folder headrace/cmake)
  set(pc_folder headrace/pkgconfig)
else()
  include(GNUInstallDirs)
  set(library_folder ${CMAKE_INSTALL_LIBDIR})
  set(include_folder ${CMAKE_INSTALL_INCLUDEDIR})
  set(cmake_folder ${CMAKE_INSTALL_LIBDIR}/cmake/headrace)
  set(pc_folder ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()
if(HEADRACE_PYTHON AND NOT HEADRACE_SHARED_CORE)
  # The library is left out, because no other target links to it, and a wheel would have the kernels twice.
  set_target_properties(headrace PROPERTIES EXCLUDE_FROM_ALL ON)
  return()
endif()

set(library_file ${CMAKE_SHARED_LIBRARY_PREFIX}headrace${CMAKE_SHARED_LIBRARY_SUFFIX})
set(c_headers ${PROJECT_SOURCE_DIR}/cpp/c/include/headrace.h ${PROJECT_SOURCE_DIR}/cpp/c/include/headrace_library.hpp)
include(CMakePackageConfigHelpers)
configure_package_config_file(cpp/c/package/headraceConfig.cmake.in ${package_folder}/cmake/headraceConfig.cmake
                              INSTALL_DESTINATION ${cmake_folder} PATH_VARS library_folder include_folder
                              NO_SET_AND_CHECK_MACRO NO_CHECK_REQUIRED_COMPONENTS_MACRO)
write_basic_package_version_file(${package_folder}/cmake/headraceConfigVersion.cmake VERSION ${HEADRACE_NUMBERS}
                                 COMPATIBILITY SameMinorVersion)
file(RELATIVE_PATH up /${pc_folder} /)
string(REGEX REPLACE "/$" "" up "${up}")
configure_file(cpp/c/package/headrace.pc.in ${package_folder}/pkgconfig/headrace.pc @ONLY)
if(HEADRACE_IN_PLACE)
  file(COPY ${c_headers} DESTINATION ${package_folder}/include)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${c_headers})
endif()

install(TARGETS headrace LIBRARY DESTINATION ${library_folder} RUNTIME DESTINATION ${library_folder})
install(FILES ${c_headers} DESTINATION ${include_folder})
install(FILES ${package_folder}/cmake/headraceConfig.cmake ${package_folder}/cmake/headraceConfigVersion.cmake
        DESTINATION ${cmake_folder})
install(FILES ${package_folder}/pkgconfig/headrace.pc DESTINATION ${pc_folder})
