#include "ascent.hpp"

#include <numeric>
#include <stdexcept>
#include <tuple>
#include <utility>

#include "../../cpp/core/blocks.hpp"
#include "arena.hpp"
#include "upload.hpp"

namespace headrace {

template <class T>
DeviceAscent<T>::DeviceAscent(std::shared_ptr<DevicePoints<T>> points, std::shared_ptr<DevicePoints<double>> anchors,
                              std::shared_ptr<DevicePoints<T>> held_out, double held_out_total, const KinkRule& rule,
                              int64_t most, cudaStream_t stream)
    : points_(std::move(points)),
      held_out_(std::move(held_out)),
      anchors_(std::move(anchors)),
      held_out_total_(held_out_total),
      rule_(rule),
      device_(points_->device()),
      most_(most) {
    const int n = features();
    if (anchors_->features() != n || (held_out_ && held_out_->features() != n))
        throw std::invalid_argument("anchors, held_out: expected the features of the points");
    if (anchors_->device() != device_ || (held_out_ && held_out_->device() != device_))
        throw std::invalid_argument("anchors, held_out: expected the device of the points");
    if (points_->count() == 0 || anchors_->count() == 0 || (held_out_ && held_out_->count() == 0))
        throw std::invalid_argument("points, anchors, held_out: expected rows");
    if (most < 0) throw std::invalid_argument("most: expected at least 0");
    const OnDevice on(device_);
    {
        const StreamOrder::Writing writing(order_, default_stream);
        kinks_ = DeviceBuffer<Kink>(size_t(most + 1) * size_t(n), default_stream);
        likelihoods_ = DeviceBuffer<double>(size_t(most + 1) * 2, default_stream);
        log_scale_ = DeviceBuffer<double>(1, default_stream);
    }
    const StreamOrder::Writing writing(order_, stream);
    ascent_identity(n, kinks_.get(), stream);
    // All bytes of the log-likelihoods become 0xff, which makes each a NaN.
    check_cuda(cudaMemsetAsync(likelihoods_.get(), 0xff, likelihoods_.size() * sizeof(double), stream),
               "log-likelihoods");
}

template <class T>
DeviceAscent<T>::~DeviceAscent() {
    try {
        const OnDevice on(device_);
        order_.wait_for_all(default_stream);  // memory is freed in the order of this stream
    } catch (const CudaError&) {              // a lost device has no memory to free
    }
}

template <class T>
template <class Number>
void DeviceAscent<T>::place(Places<Number>& places, int64_t matrix) {
    const size_t n = size_t(features()), size = 6 * n + size_t(matrix);
    if (places.numbers.size() < size) {
        const StreamOrder::Writing writing(order_, default_stream);
        places.numbers = DeviceBuffer<Number>(size, default_stream);
    }
    Number* p = places.numbers.get();
    const auto take = [&p](size_t count) { return std::exchange(p, p + count); };
    AscentPlaces<Number>& at = places.at;
    for (Number** array : {&at.bend, &at.center, &at.square, &at.shift, &at.next_center, &at.next_square})
        *array = take(n);
    at.matrix = take(size_t(matrix));
    at.log_scale = log_scale_.get();
}

template <class T>
void DeviceAscent<T>::turn(const std::vector<double>& matrix, const std::vector<int>& blocks,
                           const std::vector<int>& order, const std::vector<int64_t>& rows,
                           const std::vector<double>& drawn, bool chooses, cudaStream_t stream) {
    const int n = features();
    const AscentStructure structure = ascent_structure(blocks);
    const auto put = [&](Arena& arena) {
        Turn turn{};
        turn.matrix = arena.put(ascent_matrix<double>(structure, blocks, matrix));
        turn.order = arena.put(order);
        turn.tiles = arena.put(structure.tiles);
        return std::make_tuple(turn, arena.put(rows), arena.put(drawn));
    };
    Arena size(nullptr);
    put(size);
    if (turn_.size() < size.bytes().size()) {
        const StreamOrder::Writing writing(order_, default_stream);
        turn_ = DeviceBuffer<char>(size.bytes().size(), default_stream);
    }
    place(places_, structure.matrix);
    place(anchor_places_, structure.matrix);
    Arena arena(turn_.get());
    const auto [turn, row, draw] = put(arena);

    const StreamOrder::Writing writing(order_, stream);
    upload(turn_.get(), arena.bytes(), stream);
    const Kink* const last = kinks_at(count_);
    Kink* const next = kinks_at(count_ + 1);
    ascent_prepare(turn, n, last, places_.at, stream);
    if (chooses) {
        ascent_prepare(turn, n, last, anchor_places_.at, stream);
        anchors_->step(structure, anchor_places_.at.numbers(turn), false, stream);
        ascent_aim(anchors_->layout(), anchors_->tiles(), row, draw, rule_, next, stream);
    }
    ascent_next(n, chooses ? next : last, places_.at, stream);
    const AscentNumbers<T> numbers = places_.at.numbers(turn);
    points_->step(structure, numbers, true, stream);
    double* const likelihoods = likelihoods_.get() + 2 * count_;
    ascent_judge(n, points_->sums(), rule_.precision, rule_.total, likelihoods, stream);
    if (held_out_) {
        held_out_->step(structure, numbers, true, stream);
        ascent_judge(n, held_out_->sums(), rule_.precision, held_out_total_, likelihoods + 1, stream);
    }
    if (chooses) ascent_choose(n, points_->sums(), rule_, next, stream);
}

template <class T>
void DeviceAscent<T>::kink(const std::vector<double>& matrix, const std::vector<int>& blocks,
                           const std::vector<int>& order, const std::vector<int64_t>& rows,
                           const std::vector<double>& drawn, cudaStream_t stream) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const size_t n = size_t(features());
    check_turn(matrix, blocks, order, n);
    if (rows.size() != n || drawn.size() != n)
        throw std::invalid_argument("rows, drawn: expected one for each feature");
    for (const int64_t row : rows)
        if (row >= anchors_->count()) throw std::invalid_argument("rows: expected rows of the anchors");
    if (finished_ || count_ >= most_) throw std::invalid_argument("kink: expected no more");
    const OnDevice on(device_);
    finished_ = true;  // no step may follow an error, which leaves the points between two kinks
    turn(matrix, blocks, order, rows, drawn, true, stream);
    finished_ = false;
    ++count_;
}

template <class T>
void DeviceAscent<T>::finish(cudaStream_t stream) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (finished_) throw std::invalid_argument("finish: expected once");
    const OnDevice on(device_);
    const size_t n = size_t(features());
    std::vector<int> order(n);
    std::iota(order.begin(), order.end(), 0);
    turn(std::vector<double>(n, 1.0), std::vector<int>(n, 1), order, {}, {}, false, stream);
    finished_ = true;
}

template <class T>
std::vector<Kink> DeviceAscent<T>::kinks(cudaStream_t stream) {
    const OnDevice on(device_);
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<Kink> host(size_t(count_) * size_t(features()));
    const StreamOrder::Reading reading(order_, stream);
    if (count_ > 0)
        check_cuda(
            cudaMemcpyAsync(host.data(), kinks_at(1), host.size() * sizeof(Kink), cudaMemcpyDeviceToHost, stream),
            "kinks to the host");
    check_cuda(cudaStreamSynchronize(stream), "kinks to the host");
    return host;
}

template <class T>
std::vector<double> DeviceAscent<T>::log_likelihoods(cudaStream_t stream) {
    const OnDevice on(device_);
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<double> host(size_t(count_ + (finished_ ? 1 : 0)) * 2);
    const StreamOrder::Reading reading(order_, stream);
    if (!host.empty())
        check_cuda(cudaMemcpyAsync(host.data(), likelihoods_.get(), host.size() * sizeof(double),
                                   cudaMemcpyDeviceToHost, stream),
                   "log-likelihoods to the host");
    check_cuda(cudaStreamSynchronize(stream), "log-likelihoods to the host");
    return host;
}

template class DeviceAscent<float>;
template class DeviceAscent<double>;

}  // namespace headrace
