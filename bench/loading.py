#!/usr/bin/env python3
"""Prints the table of loading: kinefit beside mmaction2's own transforms, in turns, in one run.

Needs build/bench/loader_bench, build/kinefit, the JHMDB-14 set (KINEFIT_SHARED, default ../shared)
and the ffmpeg program. The reference is installed by bench/reference/install.sh; where that is not
possible its columns are left out, and said so. Medians over clips, of the least of three runs each.
"""
import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.environ.get('BUILD', os.path.join(ROOT, 'build'))
SHARED = os.environ.get('KINEFIT_SHARED', os.path.join(ROOT, '..', 'shared'))
JHMDB = os.path.join(SHARED, 'data', 'jhmdb14')
SET = [os.path.join(JHMDB, 'jhmdb14_2d.pkl'), os.path.join(JHMDB, 'videos')]
GOPS = [1, 2, 5, 12, 25, 50, 100, 250]


def run(command, **arguments):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **arguments)


def bench(folder, what, *arguments):
    out = os.path.join(folder, 'out.json')
    run([os.path.join(BUILD, 'bench', 'loader_bench'), what, *map(str, arguments), out])
    with open(out) as file:
        return json.load(file)


def reference(folder, first, count):
    out = os.path.join(folder, 'reference.json')
    one_thread = {name: '1' for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS')}
    run([os.path.join(BUILD, 'reference', 'bin', 'python'),
         os.path.join(ROOT, 'bench', 'reference', 'time_transforms.py'), '--annotations', SET[0],
         '--videos', SET[1], '--first', str(first), '--count', str(count), '--out', out],
        env={**os.environ, **one_thread}, stderr=subprocess.DEVNULL)
    with open(out) as file:
        return json.load(file)


def split(times):
    """(decoding, the rest, all) of one clip."""
    decode = times['decode'] + times.get('sample', 0)
    return decode, sum(times.values()) - decode, sum(times.values())


def row(name, ours, theirs, wanted, unit='ms'):
    ratio = f'{theirs / ours:.1f}x' if theirs else '-'
    beside = f'{theirs:.2f} {unit}' if theirs else '-'
    print(f'| {name} | {ours:.2f} {unit} | {beside} | {ratio} | {wanted} |', flush=True)


def clips(folder, have_reference, rounds, count):
    store = os.path.join(folder, 'jhmdb14.kfpack')
    packed = pack(store)
    ours, theirs, stored = [], [], []
    for i in range(rounds):
        ours += bench(folder, 'clips', *SET, 'split1_train', i * count, count)['times']
        if have_reference:
            theirs += reference(folder, i * count, count)['times']
        if packed:
            stored += bench(folder, 'clips', store, '-', 'split1_train', i * count, count)['times']

    def median(times, part):
        return statistics.median(split(t)[part] for t in times) if times else 0
    row('transforms after decoding', median(ours, 1), median(theirs, 1), '10x')
    row('mp4 to batch tensors, JHMDB-14', median(ours, 2), median(theirs, 2), '3x')
    if packed:
        row('packed store to batch tensors (reference: mp4)', median(stored, 2), median(theirs, 2),
            '12x')


def pack(store):
    if os.path.exists(store):
        return True
    if not os.path.exists(os.path.join(BUILD, 'kinefit')):
        print('build/kinefit is not built: packed stores are left out', file=sys.stderr)
        return False
    result = subprocess.run([os.path.join(BUILD, 'kinefit'), 'data', 'pack', SET[0], '--videos',
                             SET[1], '--out', store], stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True)
    if result.returncode != 0:
        print('kinefit data pack failed: ' + result.stderr, file=sys.stderr)
    return result.returncode == 0


def gops(folder):
    print('\n960x540 H.264, 300 frames, 8 + 32 sampled; beside it decoding every frame\n')
    print('| group of pictures | picked | from the start | ratio | at least |')
    print('| --- | --- | --- | --- | --- |')
    for gop in GOPS:
        video = os.path.join(folder, f'gop{gop}.mp4')
        if not os.path.exists(video):
            run(['ffmpeg', '-v', 'error', '-nostdin', '-y', '-f', 'lavfi', '-i',
                 'testsrc2=s=960x540:r=25,noise=alls=3:allf=t', '-frames:v', '300', '-c:v',
                 'libx264', '-preset', 'medium', '-pix_fmt', 'yuv420p', '-g', str(gop), video])
        times = bench(folder, 'gops', video, 300)
        row(str(gop), statistics.median(times['picked']), statistics.median(times['all']),
            '1.5x' if gop == 250 else '1x')


def drawing(folder):
    times = bench(folder, 'drawing', *SET, 'split1_train', 48)
    print('\ndata.heatmap.draw_on = "device", CPU time per clip, one thread\n')
    print('| | host | device | of which drawing, on the CPU |')
    print('| --- | --- | --- | --- |')
    for name, kind in (('mp4 to batch tensors', 'rgbpose'), ('joints alone', 'pose')):
        part = {key: statistics.median(values) for key, values in times[kind].items()}
        print(f'| {name} | {part["host"]:.2f} ms | {part["joints"] + part["drawing"]:.2f} ms | '
              f'{part["drawing"]:.2f} ms |')


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--clips', type=int, default=20, help='of a round')
    parser.add_argument('--samples', type=int, default=10000, help='of the memory run')
    parser.add_argument('--keep', metavar='FOLDER', help='keeps the packed store and the videos '
                        'that are made for a run there, and uses those that it has')
    parser.add_argument('--only', choices=['clips', 'drawing', 'gops', 'workers', 'memory'])
    args = parser.parse_args()
    if not os.path.exists(SET[0]):
        sys.exit(f'the JHMDB-14 set is not at {JHMDB}: set KINEFIT_SHARED')

    def wanted(part):
        return args.only in (None, part)
    if args.keep:
        os.makedirs(args.keep, exist_ok=True)
    with contextlib.nullcontext(args.keep) if args.keep else tempfile.TemporaryDirectory() \
            as folder:
        if wanted('clips'):
            install = os.path.join(ROOT, 'bench', 'reference', 'install.sh')
            have_reference = subprocess.run(
                [install, os.path.join(BUILD, 'reference')]).returncode == 0
            if not have_reference:
                print('the reference cannot be installed here; its figures are missing')
            print('| per core | kinefit | mmaction2 | ratio | at least |')
            print('| --- | --- | --- | --- | --- |')
            clips(folder, have_reference, args.rounds, args.clips)
        if wanted('drawing'):
            drawing(folder)
        if wanted('gops'):
            gops(folder)
        if wanted('workers'):
            times = bench(folder, 'workers', *SET, 'split1_train', 256)
            ratio = statistics.median(b / a for a, b in zip(times['one'], times['two']))
            print(f'\ntwo worker threads against one (wall clock, {os.cpu_count()} cores, load '
                  f'{os.getloadavg()[0]:.1f}): {statistics.median(times["one"]):.0f} -> '
                  f'{statistics.median(times["two"]):.0f} clips/s, {ratio:.2f}x (wanted: 1.9x)')
        if wanted('memory'):
            peaks = bench(folder, 'memory', *SET, 'split1_train', args.samples)['peaks']
            print('\npeak resident memory of a loader: ' +
                  ', '.join(f'{mebibytes:.0f} MiB after {clips}' for clips, mebibytes in
                            (peaks[0], peaks[1], peaks[len(peaks) // 2], peaks[-1])))


main()
