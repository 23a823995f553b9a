//! What ffmpeg makes for tests: media, its own packets and samples of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Answer, Content, Origin};

/// A folder with what ffmpeg has written, removed at the end.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Twenty seconds of a chord that changes all the time.
    pub fn ffmpeg(&self, arguments: &str) {
        let source =
            "aevalsrc=0.3*sin(2*PI*(300+20*t)*t)+0.2*sin(2*PI*1900*t)|0.4*sin(2*PI*(700-9*t)*t):d=20:s=44100";
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-y", "-f", "lavfi", "-i", source, "-bitexact"]);
        self.run(command.args(arguments.split_whitespace()));
    }

    /// Twenty seconds of noise, which looks like itself at one place only.
    pub fn noise(&self, arguments: &str) {
        let source =
            "anoisesrc=d=20:c=pink:r=44100:a=0.5:seed=7,lowpass=f=8000,aformat=channel_layouts=stereo";
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-y", "-f", "lavfi", "-i", source, "-bitexact"]);
        self.run(command.args(arguments.split_whitespace()));
    }

    /// Samples of the left channel in a file of raw stereo samples.
    pub fn left_of(&self, name: &str) -> Vec<f32> {
        let bytes = self.read(name);
        bytes.chunks_exact(8).map(|pair| f32::from_le_bytes(pair[..4].try_into().unwrap())).collect()
    }

    pub fn convert(&self, from: &str, arguments: &str) {
        let mut command = Command::new("ffmpeg");
        let of_hls: &[&str] = if from.ends_with("m3u8") { &["-allowed_extensions", "ALL"] } else { &[] };
        self.run(
            command.args(["-v", "error"]).args(of_hls).args(["-i", from]).args(arguments.split_whitespace()),
        );
    }

    fn run(&self, command: &mut Command) {
        let done = command.current_dir(self.path()).output().expect("ffmpeg is installed");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Checksums of the packets in a file.
    pub fn packets(&self, name: &str) -> Vec<String> {
        self.convert(name, &format!("-y -c copy -f framemd5 {name}.md5"));
        let text = String::from_utf8(self.read(&format!("{name}.md5"))).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split(',').nth(5).unwrap().trim().to_owned()).collect()
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path().join(name)).unwrap()
    }

    pub fn serve(&self) -> Origin {
        let root = PathBuf::from(self.path());
        Origin::start(move |request| match fs::read(root.join(request.path.trim_start_matches('/'))) {
            Ok(bytes) => Answer::file(request, &Content::bytes(bytes)),
            Err(_) => Answer::status(404),
        })
    }
}

/// Samples of the left channel, as ffmpeg decodes them.
pub fn left(folder: &Folder, name: &str) -> Vec<f32> {
    folder.convert(name, "-y -f f32le samples.raw");
    folder.left_of("samples.raw")
}

/// A playlist of the fragments of an MP4, as byte ranges of three seconds.
pub fn list_fragments(folder: &Folder, mp4: &str, list: &str) {
    let bytes = folder.read(mp4);
    let mut text = String::from("#EXTM3U\n#EXT-X-TARGETDURATION:4\n");
    let (mut at, mut fragment) = (0, None);
    while at < bytes.len() {
        let len = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        match (&bytes[at + 4..at + 8], fragment) {
            (b"moof", None) => text += &format!("#EXT-X-MAP:URI=\"{mp4}\",BYTERANGE=\"{at}@0\"\n"),
            (b"mdat", Some(begin)) => {
                text += &format!("#EXTINF:3,\n#EXT-X-BYTERANGE:{}@{begin}\n{mp4}\n", at + len - begin);
            }
            _ => {}
        }
        if &bytes[at + 4..at + 8] == b"moof" {
            fragment = Some(at);
        }
        at += len;
    }
    fs::write(folder.path().join(list), text + "#EXT-X-ENDLIST\n").unwrap();
}
