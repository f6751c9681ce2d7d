#include "version.hpp"

namespace headrace {

const char* version() {
    return HEADRACE_VERSION;
}
const char* commit() {
    return HEADRACE_COMMIT;
}

}  // namespace headrace
