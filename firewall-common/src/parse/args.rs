//! Which script an interpreter runs, from the arguments of its process.
//!
//! An [`Args`] is what is known after some bytes of the arguments, and [`Args::step`] takes the next
//! one, so that it can be the body of a loop that the kernel's verifier looks at once. The arguments
//! are what the process says of itself: a script that is found here may not be the one that runs.

/// Bytes of the arguments that are read.
pub const MAX_ARGS: u32 = 512;

/// Kinds of interpreters; 0 is none.
mod kind {
    pub const PYTHON: u32 = 1;
    pub const NODE: u32 = 2;
    pub const PERL: u32 = 3;
    pub const RUBY: u32 = 4;
    pub const PHP: u32 = 5;
    /// A shell as POSIX has it.
    pub const SHELL: u32 = 6;
    pub const BASH: u32 = 7;
    /// Shells that take what is behind `-o` in the same argument for its value.
    pub const ZSH: u32 = 8;
    pub const FISH: u32 = 9;
    pub const LUA: u32 = 10;
    pub const R: u32 = 11;
    pub const TCL: u32 = 12;
    pub const GJS: u32 = 13;
}

/// The kind of interpreter by the file name of an executable, NUL-padded or cut off; 0 if it is none.
/// A version at the end does not count: all from the first digit on.
#[inline(always)]
pub fn interpreter(name: &[u8; 16]) -> u32 {
    let mut word = EMPTY;
    let mut separator = 0;
    for byte in *name {
        match byte {
            0 | b'0'..=b'9' => break,
            // What stands before the version is part of it.
            b'-' | b'.' => separator = byte,
            _ => {
                if separator != 0 {
                    word = add(word, separator);
                    separator = 0;
                }
                word = add(word, byte);
            }
        }
    }
    match word {
        names::PYTHON | names::PYPY => kind::PYTHON,
        names::NODE | names::NODEJS => kind::NODE,
        names::PERL => kind::PERL,
        names::RUBY => kind::RUBY,
        names::PHP => kind::PHP,
        names::SH | names::DASH | names::ASH | names::MKSH | names::YASH => kind::SHELL,
        names::BASH => kind::BASH,
        names::ZSH | names::KSH => kind::ZSH,
        names::FISH => kind::FISH,
        names::LUA | names::LUAJIT => kind::LUA,
        names::R | names::RSCRIPT => kind::R,
        names::TCLSH | names::WISH => kind::TCL,
        names::GJS | names::GJS_CONSOLE => kind::GJS,
        _ => 0,
    }
}

/// What is known of the arguments of an interpreter.
///
/// In the kernel its place is the memory of a map: on the stack the verifier follows every value
/// that it can have through the loop, a hundred times as much.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// The name of a long option, as far as it was read.
    word: u64,
    /// Of [`kind`].
    interpreter: u32,
    /// Of [`state`].
    state: u32,
    /// Arguments to come that are values of options.
    values: u32,
    /// Of [`marks`].
    marks: u32,
    /// Where the script begins in the arguments, if there is one.
    pub start: u32,
    /// Its length in bytes; 0 if there is none.
    pub len: u32,
}

const _: () = assert!(size_of::<Args>() == 32);

mod state {
    /// In an argument that says nothing: the name of the process, or the value of an option.
    pub const PAST: u32 = 0;
    /// Before an argument.
    pub const START: u32 = 1;
    /// Behind a dash.
    pub const DASH: u32 = 2;
    /// In options of a letter each.
    pub const LETTERS: u32 = 3;
    /// Behind a letter whose value is the rest of the argument or the next.
    pub const VALUE: u32 = 4;
    /// Behind a letter whose value in the same way is the script.
    pub const SCRIPT_VALUE: u32 = 5;
    /// In the name of an option.
    pub const WORD: u32 = 6;
    /// In the script.
    pub const SCRIPT: u32 = 7;
    /// It is known whether there is a script.
    pub const DONE: u32 = 8;
}

mod marks {
    /// No options come any more.
    pub const NO_OPTIONS: u32 = 1;
    /// The next argument is the script, whatever it looks like.
    pub const SCRIPT_NEXT: u32 = 1 << 1;
}

impl Args {
    /// Before the first byte of the arguments of an [`interpreter`].
    #[inline(always)]
    pub const fn new(interpreter: u32) -> Self {
        let state = if interpreter == 0 { state::DONE } else { state::PAST };
        Self { word: 0, interpreter, state, values: 0, marks: 0, start: 0, len: 0 }
    }

    /// Takes the byte at `index` of the arguments, each of which ends in a NUL. A script that is cut
    /// off is none.
    #[inline(always)]
    pub fn step(&mut self, index: u32, byte: u8) {
        match self.state {
            state::PAST if byte == 0 => self.state = state::START,
            state::START => self.begin(index, byte),
            state::DASH => match byte {
                0 if self.is_shell() => self.end_options(),
                // Standard input.
                0 => self.state = state::DONE,
                b'-' => (self.state, self.word) = (state::WORD, EMPTY),
                _ if self.interpreter == kind::TCL => {
                    (self.state, self.word) = (state::WORD, add(EMPTY, byte));
                }
                _ => self.letter(byte),
            },
            state::LETTERS => match byte {
                0 => self.state = state::START,
                _ => self.letter(byte),
            },
            state::VALUE => match byte {
                0 => self.value_next(),
                _ => self.state = state::PAST,
            },
            state::SCRIPT_VALUE => match byte {
                0 => self.script_next(),
                _ => self.script(index),
            },
            state::WORD => match byte {
                0 if self.word == EMPTY => self.end_options(),
                0 => match long(self.interpreter, self.word) {
                    Long::Flag => self.state = state::START,
                    Long::Value => self.value_next(),
                    Long::Script => self.script_next(),
                    Long::Code => self.state = state::DONE,
                },
                b'=' => match long(self.interpreter, self.word) {
                    Long::Flag | Long::Value => self.state = state::PAST,
                    Long::Script => self.script(index.wrapping_add(1)),
                    Long::Code => self.state = state::DONE,
                },
                _ => self.word = add(self.word, byte),
            },
            state::SCRIPT if byte == 0 => {
                self.len = index.wrapping_sub(self.start);
                self.state = state::DONE;
            }
            _ => {}
        }
    }

    /// Whether no byte to come will change anything.
    #[inline(always)]
    pub const fn is_done(&self) -> bool {
        self.state == state::DONE
    }

    #[inline(always)]
    fn begin(&mut self, index: u32, byte: u8) {
        let sign = byte == b'-' || byte == b'+' && self.is_shell();
        if self.values > 0 {
            self.values -= 1;
            self.state = if byte == 0 { state::START } else { state::PAST };
        } else if byte == 0 {
            self.state = state::DONE;
        } else if sign && self.marks == 0 {
            self.state = state::DASH;
        } else {
            self.script(index);
        }
    }

    #[inline(always)]
    fn letter(&mut self, byte: u8) {
        let options = Options::of(self.interpreter);
        self.state = if options.code.has(byte) {
            state::DONE
        } else if options.value.has(byte) {
            state::VALUE
        } else if options.script.has(byte) {
            state::SCRIPT_VALUE
        } else if options.rest.has(byte) {
            state::PAST
        } else {
            self.values += u32::from(options.next.has(byte));
            state::LETTERS
        };
    }

    #[inline(always)]
    fn end_options(&mut self) {
        self.marks |= marks::NO_OPTIONS;
        self.state = state::START;
    }

    #[inline(always)]
    fn value_next(&mut self) {
        self.values += 1;
        self.state = state::START;
    }

    #[inline(always)]
    fn script_next(&mut self) {
        self.marks |= marks::SCRIPT_NEXT;
        self.state = state::START;
    }

    #[inline(always)]
    fn script(&mut self, index: u32) {
        self.start = index;
        self.state = state::SCRIPT;
    }

    #[inline(always)]
    const fn is_shell(&self) -> bool {
        matches!(self.interpreter, kind::SHELL | kind::BASH | kind::ZSH)
    }
}

/// The options of a letter that mean more than themselves.
#[derive(Clone, Copy)]
struct Options {
    /// There is no script: what is run comes from the option, is a module or is standard input.
    code: Letters,
    /// The rest of the argument is the value or, without one, the next argument.
    value: Letters,
    /// The same, and the value is the script.
    script: Letters,
    /// The next argument is the value, and more letters may follow in this one.
    next: Letters,
    /// The rest of the argument, if there is one, is the value.
    rest: Letters,
}

impl Options {
    const fn new(code: &[u8], value: &[u8]) -> Self {
        const NONE: Letters = Letters::of(b"");
        let (code, value) = (Letters::of(code), Letters::of(value));
        Self { code, value, script: NONE, next: NONE, rest: NONE }
    }

    const fn script(self, letters: &[u8]) -> Self {
        Self { script: Letters::of(letters), ..self }
    }

    const fn next(self, letters: &[u8]) -> Self {
        Self { next: Letters::of(letters), ..self }
    }

    const fn rest(self, letters: &[u8]) -> Self {
        Self { rest: Letters::of(letters), ..self }
    }

    #[inline(always)]
    const fn of(interpreter: u32) -> Self {
        match interpreter {
            kind::PYTHON => const { Self::new(b"cm", b"WXQ") },
            kind::NODE => const { Self::new(b"ep", b"rC") },
            kind::PERL => const { Self::new(b"eEV", b"I").rest(b"CDFMdimx") },
            kind::RUBY => const { Self::new(b"e", b"CEIXr").rest(b"FKWix") },
            kind::PHP => const { Self::new(b"BERSair", b"cdtz").script(b"fF") },
            kind::SHELL => const { Self::new(b"cs", b"").next(b"o") },
            kind::BASH => const { Self::new(b"cs", b"").next(b"oO") },
            kind::ZSH => const { Self::new(b"cs", b"o") },
            kind::FISH => const { Self::new(b"c", b"CDdfop") },
            kind::LUA => const { Self::new(b"", b"ejl").rest(b"Ob") },
            kind::R => const { Self::new(b"e", b"g").script(b"f") },
            kind::GJS => const { Self::new(b"c", b"CI") },
            _ => const { Self::new(b"", b"") },
        }
    }
}

/// What an option with a name means.
#[derive(Clone, Copy)]
enum Long {
    /// Nothing here.
    Flag,
    /// Its value is behind `=`, or the next argument.
    Value,
    /// The same, and the value is the script.
    Script,
    /// There is no script.
    Code,
}

#[inline(always)]
const fn long(interpreter: u32, word: u64) -> Long {
    match (interpreter, word) {
        (kind::PYTHON, names::CHECK_HASH_BASED_PYCS | names::JIT)
        | (
            kind::NODE,
            names::REQUIRE
            | names::IMPORT
            | names::LOADER
            | names::EXPERIMENTAL_LOADER
            | names::CONDITIONS
            | names::INPUT_TYPE
            | names::TITLE
            | names::ENV_FILE
            | names::WATCH_PATH,
        )
        | (kind::RUBY, names::ENCODING | names::EXTERNAL_ENCODING | names::INTERNAL_ENCODING)
        | (kind::PHP, names::PHP_INI | names::DEFINE | names::DOCROOT | names::ZEND_EXTENSION)
        | (kind::BASH, names::RCFILE | names::INIT_FILE)
        | (kind::FISH, names::INIT_COMMAND | names::DEBUG | names::DEBUG_OUTPUT | names::PROFILE)
        | (kind::TCL, names::ENCODING)
        | (kind::GJS, names::INCLUDE_PATH | names::COVERAGE_PREFIX | names::COVERAGE_OUTPUT) => {
            Long::Value
        }
        (kind::PHP | kind::R, names::FILE) | (kind::PHP, names::PROCESS_FILE) => Long::Script,
        (kind::NODE, names::EVAL | names::PRINT)
        | (
            kind::PHP,
            names::RUN
            | names::PROCESS_BEGIN
            | names::PROCESS_CODE
            | names::PROCESS_END
            | names::SERVER
            | names::INTERACTIVE,
        )
        | (kind::FISH | kind::GJS, names::COMMAND) => Long::Code,
        _ => Long::Flag,
    }
}

/// A set of ASCII letters.
#[derive(Clone, Copy)]
struct Letters(u64);

impl Letters {
    const fn of(letters: &[u8]) -> Self {
        let mut set = 0;
        let mut i = 0;
        while i < letters.len() {
            set |= 1 << (letters[i] - b'A');
            i += 1;
        }
        Self(set)
    }

    #[inline(always)]
    const fn has(self, byte: u8) -> bool {
        let at = byte.wrapping_sub(b'A');
        at < 64 && self.0 >> (at & 63) & 1 != 0
    }
}

/// The hash (FNV-1a) of no bytes.
const EMPTY: u64 = 0xcbf2_9ce4_8422_2325;

/// The hash of one byte more.
#[inline(always)]
const fn add(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(0x0000_0100_0000_01b3)
}

/// Hashes of the names of executables and options.
mod names {
    const fn hash(text: &str) -> u64 {
        let text = text.as_bytes();
        let mut hash = super::EMPTY;
        let mut i = 0;
        while i < text.len() {
            hash = super::add(hash, text[i]);
            i += 1;
        }
        hash
    }

    macro_rules! names {
        ($($name:ident = $text:literal),+ $(,)?) => { $(pub const $name: u64 = hash($text);)+ };
    }

    names! {
        PYTHON = "python", PYPY = "pypy", NODE = "node", NODEJS = "nodejs", PERL = "perl",
        RUBY = "ruby", PHP = "php", SH = "sh", DASH = "dash", ASH = "ash", MKSH = "mksh",
        YASH = "yash", BASH = "bash", ZSH = "zsh", KSH = "ksh", FISH = "fish", LUA = "lua",
        LUAJIT = "luajit", R = "R", RSCRIPT = "Rscript", TCLSH = "tclsh", WISH = "wish",
        GJS = "gjs", GJS_CONSOLE = "gjs-console",

        CHECK_HASH_BASED_PYCS = "check-hash-based-pycs", JIT = "jit",
        REQUIRE = "require", IMPORT = "import", LOADER = "loader",
        EXPERIMENTAL_LOADER = "experimental-loader", CONDITIONS = "conditions",
        INPUT_TYPE = "input-type", TITLE = "title", ENV_FILE = "env-file",
        WATCH_PATH = "watch-path", EVAL = "eval", PRINT = "print",
        ENCODING = "encoding", EXTERNAL_ENCODING = "external-encoding",
        INTERNAL_ENCODING = "internal-encoding",
        PHP_INI = "php-ini", DEFINE = "define", DOCROOT = "docroot",
        ZEND_EXTENSION = "zend-extension", FILE = "file", PROCESS_FILE = "process-file",
        RUN = "run", PROCESS_BEGIN = "process-begin", PROCESS_CODE = "process-code",
        PROCESS_END = "process-end", SERVER = "server", INTERACTIVE = "interactive",
        RCFILE = "rcfile", INIT_FILE = "init-file",
        INIT_COMMAND = "init-command", DEBUG = "debug", DEBUG_OUTPUT = "debug-output",
        PROFILE = "profile", COMMAND = "command",
        INCLUDE_PATH = "include-path", COVERAGE_PREFIX = "coverage-prefix",
        COVERAGE_OUTPUT = "coverage-output",
    }
}
