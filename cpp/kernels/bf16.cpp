// Compiled once for every instruction set, and once more for those with bf16 instructions: HR_BF16_DOT enables those
// for pairs, HR_BF16_TILES those for tiles. The tables are the only symbols with external linkage.
#include "../core/bf16.hpp"
#include "../core/set_name.hpp"

#include "bf16_products-inl.hpp"
#include "bf16_rounding-inl.hpp"
#ifdef HR_BF16_TILES
#include "bf16_tiles-inl.hpp"
#endif

namespace headrace {
namespace {

constexpr int row_words = 2 / VectorWords::values;

#ifdef HR_BF16_TILES
template <int P>
constexpr Bf16Kernels kernels_of = {
    {P, 1, row_words, bf16_units, true},
    round_lines<TileWords, P>,
    amx_product<P>,
    round_row<P>,
    add_inputs<P>,
    finish_units<P>,
    round_weights<P>,
    round_weight_tiles<P>,
    round_column_tiles<P>,
    round_gradients<TileWords, P>,
    tile_column_product<P>,
    row_words_of<TileWords, P>,
    word_panels<TileWords, P>,
    tile_weight_product<P>,
};
#else
template <int P>
constexpr Bf16Kernels kernels_of = {
    {P, row_words, row_words, row_block, false},
    round_lines<VectorWords, P>,
    vector_product<P>,
    round_row<P>,
    add_inputs<P>,
    finish_units<P>,
    round_weights<P>,
    nullptr,
    round_columns<P>,
    round_gradients<VectorWords, P>,
    column_product<P>,
    row_words_of<VectorWords, P>,
    word_panels<VectorWords, P>,
    vector_weight_product<P>,
};
#endif

}  // namespace

extern const Bf16Kernels HR_JOIN(bf16_, HR_ISA)[most_bf16_parts];
const Bf16Kernels HR_JOIN(bf16_, HR_ISA)[most_bf16_parts] = {kernels_of<1>, kernels_of<2>, kernels_of<3>};

}  // namespace headrace
