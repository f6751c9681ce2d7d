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

#ifdef HR_BF16_TILES
template <int P>
constexpr Bf16Kernels kernels_of = {
    {P, tile_step, 2},
    round_lines<P, tile_step>,
    tile_pair_product<P>,
    round_row<P, tile_step>,
    tile_add_pairs<P>,
    tile_finish_units<P>,
    round_weight_tiles<P>,
    round_column_tiles<P>,
    round_gradients<P, tile_step>,
    tile_column_product<P>,
    row_pairs<P>,
    pair_panels<P>,
    tile_weight_product<P>,
};
#else
template <int P>
constexpr Bf16Kernels kernels_of = {
    {P, 1, 1},       round_lines<P, 1>, pair_product<P>,        round_row<P, 1>,       add_pairs<P>,
    finish_units<P>, round_weights<P>,  round_columns<P>,       round_gradients<P, 1>, column_product<P>,
    row_pairs<P>,    pair_panels<P>,    weight_pair_product<P>,
};
#endif

}  // namespace

extern const Bf16Kernels HR_JOIN(bf16_, HR_ISA)[most_bf16_parts];
const Bf16Kernels HR_JOIN(bf16_, HR_ISA)[most_bf16_parts] = {kernels_of<1>, kernels_of<2>, kernels_of<3>};

}  // namespace headrace
