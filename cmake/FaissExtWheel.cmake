# The component `python`: the native part of the Python package, laid out as in
# site-packages (its Python sources are added by pyproject.toml). It takes part
# in no other installation.

set(python_component COMPONENT python EXCLUDE_FROM_ALL)
install(TARGETS faiss_ext_gpu swigfaiss_ext
  LIBRARY DESTINATION faiss_ext/_native ${python_component} NAMELINK_SKIP)
set(module_dir "$<TARGET_PROPERTY:swigfaiss_ext,LIBRARY_OUTPUT_DIRECTORY>")
install(FILES "${module_dir}/swigfaiss_ext.py"
  DESTINATION faiss_ext/_native ${python_component})
install(FILES "${module_dir}/../_loader/built_on.py"
  DESTINATION faiss_ext/_loader ${python_component})
set_target_properties(swigfaiss_ext PROPERTIES INSTALL_RPATH "$ORIGIN")
if(NOT SKBUILD)
  return()
endif()

# A wheel holds no links: the library has one name.
set_target_properties(faiss_ext_gpu PROPERTIES
  VERSION "${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}")
if(FAISS_EXT_BESIDE_WHEEL)
  # Wherever both are installed. The wheel has loaded CUDA's libraries by then.
  set_target_properties(faiss_ext_gpu PROPERTIES INSTALL_RPATH "$ORIGIN/../../faiss")
  set_target_properties(swigfaiss_ext PROPERTIES INSTALL_RPATH "$ORIGIN;$ORIGIN/../../faiss")
else()
  # For the Faiss and the CUDA of this machine.
  set_target_properties(faiss_ext_gpu PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
endif()
