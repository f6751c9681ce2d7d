// The version of this build, and its commit where it was built from a clone.
#pragma once

namespace headrace {

const char* version();
const char* commit();  // empty where it is not known

}  // namespace headrace
