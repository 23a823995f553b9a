#!/usr/bin/env python3
"""Writes a short piece of synthesised music as a WAV file: a melody over a bass, with a soft noise for percussion.

usage: make.py SECONDS FILE.wav
"""
import math, random, struct, sys, wave

RATE = 22_050
MELODY = [69, 72, 76, 74, 72, 71, 69, 64, 65, 69, 72, 71, 69, 68, 69, 69]
BASS = [45, 45, 41, 41, 38, 38, 40, 40]
BEAT = 0.25


def pitch(note):
    return 440.0 * 2 ** ((note - 69) / 12)


def sample(t, noise):
    step, within = divmod(t, BEAT)
    lead = math.exp(-5 * within) * math.sin(2 * math.pi * pitch(MELODY[int(step) % 16]) * t)
    lead += 0.4 * math.exp(-7 * within) * math.sin(4 * math.pi * pitch(MELODY[int(step) % 16]) * t)
    low = math.sin(2 * math.pi * pitch(BASS[int(step / 2) % 8]) * t)
    hit = math.exp(-40 * (t % (2 * BEAT))) * noise
    return 0.35 * lead + 0.25 * low + 0.1 * hit


def main(seconds, path):
    noise = random.Random(1)
    values = [sample(n / RATE, noise.uniform(-1, 1)) for n in range(int(float(seconds) * RATE))]
    with wave.open(path, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(b"".join(struct.pack("<h", int(32_000 * v)) for v in values))


main(*sys.argv[1:])
