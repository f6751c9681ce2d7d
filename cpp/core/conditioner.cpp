#include "conditioner.hpp"

#include <stdexcept>

namespace headrace {

Conditioner::Conditioner(int context, int outputs, bool joint) : context_(context), outputs_(outputs), joint_(joint) {
    if (context < 0 || outputs < 0)
        throw std::invalid_argument("context, outputs: expected numbers of columns and of parameters");
}

}  // namespace headrace
