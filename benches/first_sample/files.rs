//! Makes the media files with ffmpeg, and keeps them in the target directory for the next run.
//!
//! All are cut from the same pink noise, whose volume changes so that a variable bit rate varies. A file of 4 minutes is
//! stereo at 44.1 kHz. A longer one is mono at 22.05 kHz, so that 60 minutes without loss stay below 200 MB.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{flac, picture};

/// How a container finds the bytes of a time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seek {
    /// From a table, an index or the bit rate.
    Direct,
    /// By bisection: each step depends on the one before.
    Bisects,
}

/// How a cover gets into the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cover {
    /// ffmpeg writes none into this container.
    None,
    /// As a track with one picture.
    Picture,
    /// As a Vorbis comment in base 64.
    Comment,
    /// As an attached file.
    Attachment,
}

/// The encoded audio that a kind is made from.
#[derive(Clone, Copy)]
enum Audio {
    Pcm,
    Mp3Constant,
    Mp3Variable,
    Flac,
    Vorbis,
    Aac,
}

/// A container and its variant.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    extension: &'static str,
    /// Dependent round trips of an opening that remain once everything computable from known bytes is fetched in parallel.
    pub(crate) dependent: u32,
    pub(crate) seek: Seek,
    audio: Audio,
    cover: Cover,
    args: &'static [&'static str],
    has_seektable: bool,
}

const fn kind(
    name: &'static str,
    extension: &'static str,
    dependent: u32,
    audio: Audio,
    cover: Cover,
    args: &'static [&'static str],
) -> Kind {
    Kind { name, extension, dependent, seek: Seek::Direct, audio, cover, args, has_seektable: false }
}

const FRAGMENTED: &[&str] =
    &["-movflags", "empty_moov+default_base_moof+skip_trailer", "-frag_duration", "4000000"];
const INDEXED_FRAGMENTS: &[&str] =
    &["-movflags", "dash+global_sidx+default_base_moof", "-frag_duration", "4000000"];

pub(crate) const KINDS: [Kind; 15] = [
    kind("mp3-cbr", "mp3", 0, Audio::Mp3Constant, Cover::Picture, &[]),
    kind("mp3-cbr-noxing", "mp3", 1, Audio::Mp3Constant, Cover::Picture, &["-write_xing", "0"]),
    kind("mp3-vbr", "mp3", 0, Audio::Mp3Variable, Cover::Picture, &[]),
    kind("mp3-vbr-noxing", "mp3", 1, Audio::Mp3Variable, Cover::Picture, &["-write_xing", "0"]),
    Kind { has_seektable: true, ..kind("flac-seektable", "flac", 0, Audio::Flac, Cover::Picture, &[]) },
    Kind { seek: Seek::Bisects, ..kind("flac", "flac", 0, Audio::Flac, Cover::Picture, &[]) },
    Kind { seek: Seek::Bisects, ..kind("ogg", "ogg", 1, Audio::Vorbis, Cover::Comment, &[]) },
    kind("m4a-end", "m4a", 1, Audio::Aac, Cover::Picture, &[]),
    kind("m4a-front", "m4a", 0, Audio::Aac, Cover::Picture, &["-movflags", "faststart"]),
    kind("mp4-fragmented", "mp4", 0, Audio::Aac, Cover::None, FRAGMENTED),
    kind("mp4-fragmented-sidx", "mp4", 0, Audio::Aac, Cover::None, INDEXED_FRAGMENTS),
    kind("wav", "wav", 0, Audio::Pcm, Cover::None, &[]),
    kind("aiff", "aiff", 0, Audio::Pcm, Cover::None, &["-c:a", "pcm_s16be"]),
    kind("adts", "aac", 1, Audio::Aac, Cover::None, &["-f", "adts"]),
    kind("mka", "mka", 0, Audio::Aac, Cover::Attachment, &[]),
];

impl Kind {
    pub(crate) fn has_cover(&self) -> bool {
        self.cover != Cover::None
    }
}

impl Audio {
    fn name(self) -> &'static str {
        match self {
            Self::Pcm => "pcm.wav",
            Self::Mp3Constant => "constant.mp3",
            Self::Mp3Variable => "variable.mp3",
            Self::Flac => "flac.flac",
            Self::Vorbis => "vorbis.ogg",
            Self::Aac => "aac.m4a",
        }
    }

    fn encoder(self, rate: &'static str) -> Vec<&'static str> {
        match self {
            Self::Pcm => vec![],
            Self::Mp3Constant => vec!["-c:a", "libmp3lame", "-b:a", rate],
            Self::Mp3Variable => vec!["-c:a", "libmp3lame", "-q:a", "0"],
            Self::Flac => vec!["-c:a", "flac"],
            // By quality: libvorbis refuses such a rate for one channel at 22.05 kHz.
            Self::Vorbis => vec!["-c:a", "libvorbis", "-q:a", "6"],
            Self::Aac => vec!["-c:a", "aac", "-b:a", rate],
        }
    }
}

/// Directory of the files. Only its owner makes files in it.
pub(crate) struct Files(PathBuf);

impl Files {
    /// Fails with the name of a missing program or directory.
    pub(crate) fn new() -> Result<Self, String> {
        let tool = Command::new("ffmpeg").arg("-encoders").stderr(Stdio::null()).output();
        let encoders = tool.map_err(|error| format!("ffmpeg makes the files, and can't be run: {error}"))?;
        let encoders = String::from_utf8_lossy(&encoders.stdout).into_owned();
        let missing =
            ["libmp3lame", "libvorbis", "flac", "aac"].into_iter().find(|name| !encoders.contains(name));
        if let Some(name) = missing {
            return Err(format!("this ffmpeg has no encoder {name}"));
        }
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("first_sample");
        fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(Self(dir))
    }

    /// The path of a file, which is made if it is not there.
    pub(crate) fn get(&self, kind: &Kind, minutes: u32, has_cover: bool) -> Result<PathBuf, String> {
        let cover = if has_cover { "-cover" } else { "" };
        let path = self.0.join(format!("{}-{minutes}{cover}.{}", kind.name, kind.extension));
        if path.exists() {
            return Ok(path);
        }
        let audio = self.audio(kind.audio, minutes)?;
        let mut command = ffmpeg();
        command.arg("-i").arg(audio);
        if has_cover {
            self.add_cover(&mut command, kind.cover)?;
        }
        let copies = !kind.args.contains(&"-c:a");
        command.args(if copies { &["-c:a", "copy"][..] } else { &[] }).args(kind.args);
        write(&path, |path| {
            run(command.arg(path))?;
            if kind.has_seektable {
                let bytes = fs::read(path).map_err(|error| error.to_string())?;
                fs::write(path, flac::with_seektable(&bytes)).map_err(|error| error.to_string())?;
            }
            Ok(())
        })?;
        Ok(path)
    }

    fn add_cover(&self, command: &mut Command, cover: Cover) -> Result<(), String> {
        let picture = self.cover()?;
        match cover {
            Cover::None => {}
            Cover::Picture => {
                command.arg("-i").arg(picture);
                command.args([
                    "-map",
                    "0:a",
                    "-map",
                    "1:v",
                    "-c:v",
                    "copy",
                    "-disposition:v",
                    "attached_pic",
                ]);
            }
            Cover::Comment => {
                let comment = self.0.join("comment.txt");
                let bytes = fs::read(picture).map_err(|error| error.to_string())?;
                fs::write(&comment, picture::metadata(&bytes)).map_err(|error| error.to_string())?;
                command.arg("-i").arg(comment).args([
                    "-map",
                    "0:a",
                    "-map_metadata",
                    "1",
                    "-map_metadata:s",
                    "1",
                ]);
            }
            Cover::Attachment => {
                command.arg("-attach").arg(picture).args(["-metadata:s:t", "mimetype=image/jpeg"]);
            }
        }
        Ok(())
    }

    /// A picture of 300 kB.
    fn cover(&self) -> Result<PathBuf, String> {
        let path = self.0.join("cover.jpg");
        let noise = "nullsrc=size=680x680,geq=random(1)*255:128:128";
        make(&path, ["-f", "lavfi", "-i", noise, "-frames:v", "1", "-q:v", "3"])?;
        Ok(path)
    }

    fn audio(&self, audio: Audio, minutes: u32) -> Result<PathBuf, String> {
        let is_long = minutes > 10;
        let pcm = self.0.join(format!("source-{minutes}.wav"));
        let rate = if is_long { 22_050 } else { 44_100 };
        let noise = |seed: u32| {
            let seconds = 60 * minutes;
            format!("anoisesrc=color=pink:amplitude=0.4:sample_rate={rate}:seed={seed}:duration={seconds}")
        };
        let channels =
            if is_long { noise(1) } else { format!("{}[l];{}[r];[l][r]amerge", noise(1), noise(2)) };
        let graph = format!("{channels},volume='0.55+0.4*sin(t/7)':eval=frame");
        make(&pcm, ["-filter_complex", &graph, "-c:a", "pcm_s16le"])?;
        let path = self.0.join(format!("source-{minutes}-{}", audio.name()));
        if !path.exists() {
            let encoder = audio.encoder(if is_long { "96k" } else { "192k" });
            write(&path, |path| run(ffmpeg().arg("-i").arg(&pcm).args(encoder).arg(path)))?;
        }
        Ok(path)
    }
}

fn make<const N: usize>(path: &Path, args: [&str; N]) -> Result<(), String> {
    if path.exists() {
        return Ok(());
    }
    write(path, |path| run(ffmpeg().args(args).arg(path)))
}

fn ffmpeg() -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-y"]).stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let text = || format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(()) } else { Err(text()) }
}

/// Lets `write` make the file, and renames it when it is complete, because a run may be interrupted.
fn write(path: &Path, write: impl FnOnce(&Path) -> Result<(), String>) -> Result<(), String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!("partial-{name}"));
    write(&partial)?;
    fs::rename(&partial, path).map_err(|error: io::Error| format!("{}: {error}", path.display()))
}
