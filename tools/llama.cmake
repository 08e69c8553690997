# What the suite needs of llama.cpp: without the library of its command line programs, which our
# driver doesn't load and which takes most of the time of compiling. A normal variable, because
# llama-cpp-python forces the cached one. Read through CMAKE_PROJECT_TOP_LEVEL_INCLUDES.
set(LLAMA_BUILD_COMMON OFF)
