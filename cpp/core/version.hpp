// The version of this build, and its commit where it was built from a clone.
#pragma once

namespace headrace {

const char* version();
const char* commit();  // an empty string if the commit is unknown

}  // namespace headrace
