"""The operators that do no products of their own, by the convention of the price list.

Elementwise operators and views are recognised by torch's tags and are not named here. Everything else that
is not on this list and has no formula is refused, so a name belongs here only when its work is linear in the
sizes of its operands and results (or a sort of them): lookups, copies, reductions, norms, softmax, losses.
"""

# A string, so that what belongs together stays on a line.
FREE = frozenset(
    """
    arange empty empty_like empty_strided full full_like new_empty new_empty_strided new_full new_ones
    new_zeros linspace ones ones_like zeros zeros_like eye scalar_tensor lift_fresh lift_fresh_copy rand
    rand_like randn randn_like randint randint_like randperm bernoulli bernoulli_ normal_ uniform_
    exponential_ multinomial native_dropout

    _to_copy _unsafe_view cat clone constant_pad_nd copy copy_ fill fill_ flip pixel_shuffle
    pixel_unshuffle reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d repeat
    roll repeat_interleave split_with_sizes_copy stack tril tril_ triu triu_ unsafe_split unsafe_chunk
    unsafe_split_with_sizes transpose_ view_copy zero zero_ im2col channel_shuffle

    embedding gather index index_fill index_put index_put_ _unsafe_index _unsafe_index_put index_select
    masked_select nonzero scatter scatter_ scatter_add scatter_add_ scatter_reduce index_add index_add_
    index_copy take bucketize searchsorted

    all amax amin any argmax argmin aminmax cummax cummin cumprod cumsum logcumsumexp logsumexp max mean
    min linalg_vector_norm median nansum norm prod std std_mean sum var var_mean sort topk kthvalue
    equal

    _softmax _log_softmax _safe_softmax glu _prelu_kernel rrelu_with_noise native_layer_norm
    native_group_norm native_batch_norm _native_batch_norm_legit cudnn_batch_norm
    _native_batch_norm_legit_no_training _fused_rms_norm _batch_norm_with_update _batch_norm_no_update

    avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d
    max_pool2d_with_indices max_pool3d_with_indices upsample_nearest1d upsample_nearest2d
    upsample_bilinear2d

    nll_loss_forward nll_loss2d_forward mse_loss smooth_l1_loss huber_loss binary_cross_entropy
    """.split()  # noqa: SIM905
)
