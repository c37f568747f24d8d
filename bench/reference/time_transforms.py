"""Times mmaction2's own training transforms on clips of an annotation pickle, in one thread.

The pipeline is that of configs/skeleton/posec3d/rgbpose_conv3d/rgbpose_conv3d.py with ColorJitter
after Flip, followed by the arithmetic of ActionDataPreprocessor. Writes one JSON object: the ids of
the clips and, for each, milliseconds of CPU time of every stage.
"""
import argparse
import json
import pickle
import time
import warnings

warnings.filterwarnings('ignore')
import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from mmaction.datasets import transforms  # noqa: E402

MEAN = torch.tensor([123.675, 116.28, 103.53]).view(-1, 1, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(-1, 1, 1, 1)


def make_pipeline(args):
    stages = [
        ('sample', transforms.MMUniformSampleFrames(clip_len=dict(RGB=8, Pose=32), num_clips=1)),
        ('decode', transforms.MMDecode()),
    ]
    if args.decode_only:
        return stages
    return stages + [
        ('compact', transforms.MMCompact(hw_ratio=1., allow_imgpad=True)),
        ('resize', transforms.Resize(scale=(256, 256), keep_ratio=False)),
        ('crop', transforms.RandomResizedCrop(area_range=(0.56, 1.0))),
        ('resize again', transforms.Resize(scale=(224, 224), keep_ratio=False)),
        ('flip', transforms.Flip(flip_ratio=0.5, left_kp=args.left, right_kp=args.right)),
        ('colour jitter', transforms.ColorJitter()),
        ('heatmaps', transforms.GeneratePoseTarget(sigma=0.7, use_score=True, with_kp=True,
                                                   with_limb=False, scaling=0.25)),
        ('format', transforms.FormatShape(input_format='NCTHW')),
        ('pack', transforms.PackActionInputs(collect_keys=('imgs', 'heatmap_imgs'))),
    ]


def load(args):
    with open(args.annotations, 'rb') as file:
        data = pickle.load(file)
    clips = {clip['frame_dir']: clip for clip in data['annotations']}
    ids = data['split'][args.split][args.first:args.first + args.count]
    samples = []
    for name in ids:
        sample = dict(clips[name], filename=f'{args.videos}/{name}.mp4', start_index=0,
                      modality='Pose')
        sample['keypoint'] = sample['keypoint'].astype(np.float32)
        sample['keypoint_score'] = sample['keypoint_score'].astype(np.float32)
        samples.append(sample)
    return samples


def run(stages, sample):
    """Milliseconds of CPU time per stage."""
    times = {}
    before = time.process_time()
    for name, stage in stages:
        sample = stage(sample)
        now = time.process_time()
        times[name] = 1e3 * (now - before)
        before = now
    if 'inputs' in sample:  # ActionDataPreprocessor: stack, to float, normalise
        imgs = torch.stack([sample['inputs']['imgs']])
        imgs = (imgs - MEAN) / STD
        heatmaps = torch.stack([sample['inputs']['heatmap_imgs']]).to(torch.float32)
        assert imgs.shape[-4:] == (3, 8, 224, 224) and heatmaps.shape[-3:] == (32, 56, 56)
        times['normalise'] = 1e3 * (time.process_time() - before)
    return times


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--annotations', required=True)
    parser.add_argument('--videos', required=True)
    parser.add_argument('--out', required=True)
    parser.add_argument('--split', default='split1_train')
    parser.add_argument('--first', type=int, default=0)
    parser.add_argument('--count', type=int, default=40)
    parser.add_argument('--left', type=int, nargs='*', default=[4, 6, 8, 10, 12, 14])
    parser.add_argument('--right', type=int, nargs='*', default=[3, 5, 7, 9, 11, 13])
    parser.add_argument('--decode-only', action='store_true')
    args = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    np.random.seed(0)
    stages = make_pipeline(args)
    samples = load(args)
    run(stages, dict(samples[0]))  # what is done only once is not counted
    times = []
    for sample in samples:  # of three runs: what takes longer is other work's doing
        runs = [run(stages, dict(sample)) for _ in range(3)]
        times.append({name: min(one[name] for one in runs) for name in runs[0]})
    with open(args.out, 'w') as file:
        json.dump({'ids': [s['frame_dir'] for s in samples], 'times': times}, file)


main()
