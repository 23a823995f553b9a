#!/usr/bin/env bash
# Makes the encoded tracks. Needs python3 and ffmpeg (Debian: ffmpeg 5.1).
set -euo pipefail
cd "$(dirname "$0")"
python3 make.py 8 long.wav
python3 make.py 4 track.wav
encode() { ffmpeg -loglevel error -y -i long.wav -map_metadata -1 -fflags +bitexact -flags:a +bitexact "$@"; }
encode -c:a flac -compression_level 5 track.flac
encode -c:a libvorbis -ac 2 -q:a 5 track.ogg
encode -c:a libmp3lame -b:a 96k track.mp3
# Without -movflags +faststart the index (moov) lies at the end.
encode -c:a aac -b:a 96k track.m4a
# For HLS: in fragments.
encode_fragments() {
    ffmpeg -loglevel error -y -i track.wav -t 1.5 -map_metadata -1 -fflags +bitexact -flags:a +bitexact "$1" "$2" \
        -movflags +frag_keyframe+empty_moov+default_base_moof -frag_duration 500000 "$3"
}
encode_fragments -c:a alac alac.mp4
rm long.wav
