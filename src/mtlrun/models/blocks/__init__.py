"""Building blocks that several architectures or backbones are made of.

Here: layers for vectors and maps (`layers`), several backbones side by side (`parallel_backbones`), one backbone run
once per task (`task_trunk`), sets of BatchNorm statistics, experts and gates, distillation between tasks.
Not here: a block of one architecture only, which stands in that architecture's file.

Contract: a block knows the names of tasks at most, not the dataset or the loss. It works on feature vectors [batch,
channels] and on feature maps [batch, channels, height, width], and declares no parameter groups; the model does.
"""
