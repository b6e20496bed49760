# find_package(faiss_ext) for other projects.

include(CMakePackageConfigHelpers)
set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/faiss_ext)
install(EXPORT faiss_ext-targets NAMESPACE faiss_ext:: DESTINATION ${config_dir})
configure_package_config_file(
  ${CMAKE_CURRENT_LIST_DIR}/faiss_ext-config.cmake.in
  ${PROJECT_BINARY_DIR}/faiss_ext-config.cmake
  INSTALL_DESTINATION ${config_dir})
write_basic_package_version_file(
  ${PROJECT_BINARY_DIR}/faiss_ext-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES
  ${PROJECT_BINARY_DIR}/faiss_ext-config.cmake
  ${PROJECT_BINARY_DIR}/faiss_ext-config-version.cmake
  DESTINATION ${config_dir})
if(FAISS_EXT_BESIDE_WHEEL)
  install(FILES "${CMAKE_CURRENT_LIST_DIR}/FaissExtFaissWheel.cmake" "${FAISS_EXT_FAISS_BUILD}"
    DESTINATION ${config_dir})
endif()
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION ${CMAKE_INSTALL_DOCDIR})
