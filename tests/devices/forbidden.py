"""What CUDA refuses in deterministic mode."""

#: Operations of PyTorch that raise there (torch.use_deterministic_algorithms, 2.11 to 2.14), by the dispatcher's names.
#: Backward passes of bilinear interpolation are not among them, since PyTorch replaces that by other operations.
FORBIDDEN = {
    "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward", "adaptive_max_pool2d_backward",
    "avg_pool3d_backward", "fractional_max_pool2d_backward", "fractional_max_pool3d_backward",
    "max_unpool2d", "max_unpool3d",
    "upsample_linear1d_backward", "upsample_bicubic2d_backward", "upsample_trilinear3d_backward",
    "reflection_pad1d_backward", "reflection_pad2d_backward", "reflection_pad3d_backward",
    "nll_loss2d_forward", "_ctc_loss_backward", "put_", "histc", "median", "nanmedian", "kthvalue", "cumsum",
    "grid_sampler_2d_backward", "grid_sampler_3d_backward",
    "_roi_align_backward", "_roi_pool_backward", "_ps_roi_align_backward", "_ps_roi_pool_backward",
}  # fmt: skip
