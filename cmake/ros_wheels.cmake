# Cures two errors of a build with the ROS wheels of PyPI. Passed as -DCMAKE_PROJECT_INCLUDE=..., so
# that CMakeLists.txt stays that of any ROS package.
#
# 1. The wheels' targets name include directories of the machine that built them (/opt/python/...).
# 2. Our own message target would export those of this interpreter, likewise of no use elsewhere;
#    CMake refuses when they lie below the sources, as those of a .venv do.
function(repair_include_directories)
  get_property(imported DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS imported)
    get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(directories)
      foreach(directory IN LISTS directories)
        if(NOT directory MATCHES "^\\$<" AND NOT EXISTS "${directory}")
          list(REMOVE_ITEM directories "${directory}")
        endif()
      endforeach()
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${directories}")
    endif()
  endforeach()

  set(target ${PROJECT_NAME}__rosidl_generator_py)
  if(TARGET ${target})
    get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
    set_target_properties(${target} PROPERTIES
      INTERFACE_INCLUDE_DIRECTORIES "$<BUILD_INTERFACE:${directories}>")
  endif()
endfunction()

cmake_language(DEFER CALL repair_include_directories)
