//! What a network does to what crosses it in one direction: [`Plan`].
//!
//! A plan is written in words, `chunk=100,delay=20ms`, in any order. Sizes and rates take `k`, `M`
//! and `G` for thousands, millions, milliards of bytes, `Ki`, `Mi`, `Gi` for powers of 1024; times
//! are `us`, `ms` or `s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How long the bytes held by `hold-tail` wait for the sender to go on.
pub const HOLD: Duration = Duration::from_millis(200);
/// The distance of the pieces of `chunk` without `delay`: long enough that a receiver who is
/// waiting reads each on its own, short enough that thousands do not take for ever.
pub const GAP: Duration = Duration::from_micros(250);
/// How long a datagram held by `reorder` waits for one to overtake it.
pub const OVERTAKE: Duration = Duration::from_millis(100);

const LONGEST_HOLD: u64 = 1 << 20;
const LONGEST_TIME: Duration = Duration::from_secs(3600);

/// The known words, each with what it does: for help and errors.
pub const WORDS: [(&str, &str); 13] = [
    ("chunk=BYTES", "pieces of at most so many bytes, each sent on its own"),
    ("delay=TIME", "everything arrives so much later; with chunk: so long before each piece"),
    ("jitter=TIME", "up to so much later still, at random"),
    ("rate=BYTES", "at most so many bytes a second, such as 64k"),
    ("hold-tail=BYTES", "the last bytes arrive only when the sender has paused for 200 ms"),
    ("fin-after=BYTES", "after so many bytes the receiver gets a FIN, and the rest is lost"),
    ("reset-after=BYTES", "after so many bytes both sides get an RST"),
    ("stall-after=BYTES", "after so many bytes nothing gets through, not even a FIN"),
    ("corrupt-at=OFFSET", "the lowest bit of the byte at this offset (from 0) is flipped"),
    ("drop=PERCENT", "UDP: so many datagrams are lost, such as 20%"),
    ("dup=PERCENT", "UDP: so many datagrams arrive twice"),
    ("reorder=PERCENT", "UDP: so many datagrams are overtaken by the next one"),
    ("truncate=BYTES", "UDP: of each datagram only so many bytes arrive"),
];

/// What the network does in one direction. The default does nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The longest piece, in bytes.
    pub chunk: Option<u64>,
    /// Time that everything is late.
    pub delay: Duration,
    /// The most that a piece is later still.
    pub jitter: Duration,
    /// Bytes per second.
    pub rate: Option<u64>,
    /// Bytes at the end that are held back.
    pub hold_tail: Option<u64>,
    /// Where the stream is cut, and how.
    pub cut: Option<Cut>,
    /// Offset of the byte that is changed.
    pub corrupt_at: Option<u64>,
    /// How many datagrams are lost.
    pub drop: Share,
    /// How many datagrams arrive twice.
    pub dup: Share,
    /// How many datagrams are overtaken by the next one.
    pub reorder: Share,
    /// Bytes of each datagram that arrive.
    pub truncate: Option<u64>,
}

/// Where a stream is cut, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Bytes that still get through.
    pub after: u64,
    /// What happens then.
    pub how: How,
}

/// How a stream is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The receiver gets a FIN.
    Fin,
    /// Both sides get an RST.
    Reset,
    /// Nothing gets through any more.
    Stall,
}

/// A part of all datagrams, in hundredths of a percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share(u16);

impl Plan {
    /// Whether nothing is spoiled.
    pub fn is_none(&self) -> bool {
        *self == Plan::default()
    }

    /// Whether chance has a part in it, so that the seed matters.
    pub fn is_random(&self) -> bool {
        let shares = [self.drop, self.dup, self.reorder];
        !self.jitter.is_zero() || shares.iter().any(|share| share.0 > 0)
    }

    /// Checks that the plan can be carried out on a stream.
    ///
    /// # Errors
    /// One sentence that names the first word that is for datagrams only.
    pub fn for_tcp(&self) -> Result<(), String> {
        let datagrams = self.words().into_iter().find(|word| Self::is_for(word, "UDP"));
        datagrams.map_or(Ok(()), |word| Err(format!("'{word}' is for datagrams (UDP) only")))
    }

    /// Checks that the plan can be carried out on datagrams.
    ///
    /// # Errors
    /// One sentence that names the first word that is for streams only.
    pub fn for_udp(&self) -> Result<(), String> {
        let streams = self.words().into_iter().find(|word| Self::is_for(word, "TCP"));
        streams.map_or(Ok(()), |word| Err(format!("'{word}' is for streams (TCP) only")))
    }

    fn is_for(word: &str, protocol: &str) -> bool {
        let name = word.split('=').next().unwrap_or_default();
        match name {
            "drop" | "dup" | "reorder" | "truncate" => protocol == "UDP",
            "delay" | "jitter" | "rate" | "corrupt-at" => false,
            _ => protocol == "TCP",
        }
    }

    /// The plan in words, each of which parses to its part of the plan.
    pub fn words(&self) -> Vec<String> {
        let time = |name: &str, time: Duration| {
            let micros = time.as_micros();
            (micros > 0).then(|| match micros % 1000 {
                0 => format!("{name}={}ms", micros / 1000),
                _ => format!("{name}={micros}us"),
            })
        };
        let bytes = |name: &str, n: Option<u64>| n.map(|n| format!("{name}={n}"));
        let share = |name: &str, Share(n): Share| {
            (n > 0).then(|| format!("{name}={}%", f64::from(n) / 100.0))
        };
        let cut = self.cut.map(|cut| match cut.how {
            How::Fin => format!("fin-after={}", cut.after),
            How::Reset => format!("reset-after={}", cut.after),
            How::Stall => format!("stall-after={}", cut.after),
        });
        [
            bytes("chunk", self.chunk),
            time("delay", self.delay),
            time("jitter", self.jitter),
            bytes("rate", self.rate),
            bytes("hold-tail", self.hold_tail),
            cut,
            bytes("corrupt-at", self.corrupt_at),
            share("drop", self.drop),
            share("dup", self.dup),
            share("reorder", self.reorder),
            bytes("truncate", self.truncate),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "chunk" => self.chunk = Some(positive(value)?),
            "delay" => self.delay = time(value)?,
            "jitter" => self.jitter = time(value)?,
            "rate" => self.rate = Some(positive(value)?),
            "hold-tail" => match positive(value)? {
                held if held > LONGEST_HOLD => {
                    return Err(format!("at most {LONGEST_HOLD} bytes can be held"));
                }
                held => self.hold_tail = Some(held),
            },
            "fin-after" => self.cut_after(value, How::Fin)?,
            "reset-after" => self.cut_after(value, How::Reset)?,
            "stall-after" => self.cut_after(value, How::Stall)?,
            "corrupt-at" => self.corrupt_at = Some(size(value)?),
            "drop" => self.drop = share(value)?,
            "dup" => self.dup = share(value)?,
            "reorder" => self.reorder = share(value)?,
            "truncate" => self.truncate = Some(positive(value)?),
            _ => return Err(format!("no such fault; known are: {}", known())),
        }
        Ok(())
    }

    fn cut_after(&mut self, value: &str, how: How) -> Result<(), String> {
        if self.cut.is_some() {
            return Err("only one of fin-after, reset-after and stall-after can be".to_owned());
        }
        self.cut = Some(Cut { after: size(value)?, how });
        Ok(())
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut plan = Plan::default();
        let mut seen = Vec::new();
        for word in text.split(',').map(str::trim) {
            let failed = |why: String| format!("'{}': {why}", word.escape_debug());
            let Some((name, value)) = word.split_once('=') else {
                return Err(failed(format!("NAME=VALUE is wanted; known are: {}", known())));
            };
            if seen.contains(&name) {
                return Err(failed(format!("{name} is there twice")));
            }
            seen.push(name);
            plan.set(name, value).map_err(failed)?;
        }
        let used = plan.words();
        let of = |protocol| used.iter().find(|word| Plan::is_for(word, protocol));
        match (of("TCP"), of("UDP")) {
            (Some(tcp), Some(udp)) => {
                Err(format!("'{tcp}' is for streams (TCP), '{udp}' for datagrams (UDP)"))
            }
            _ => Ok(plan),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join(","))
    }
}

impl Share {
    /// Whether a thing of this share happens, given an even chance number.
    pub(crate) fn strikes(self, dice: u64) -> bool {
        dice % 10_000 < u64::from(self.0)
    }
}

/// An even chance number that depends on nothing but its arguments: the same seed gives the same
/// run, whatever the threads do (the finalizer of SplitMix64).
pub(crate) fn dice(seed: u64, salt: u64, n: u64) -> u64 {
    let mut z = seed ^ salt.rotate_left(32) ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for _ in 0..2 {
        z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
    }
    z
}

fn known() -> String {
    WORDS.map(|(word, _)| word).join(", ")
}

/// Splits `text` into a number and what comes after it.
fn number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.split_at(end)
}

fn size(text: &str) -> Result<u64, String> {
    let wanted = "a number of bytes is wanted, such as 1400, 64k or 1Mi";
    let (digits, unit) = number(text);
    let unit: u64 = match unit {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return Err(wanted.to_owned()),
    };
    if digits.is_empty() || digits.contains('.') {
        return Err(wanted.to_owned());
    }
    let size = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    size.filter(|&n| n <= i64::MAX as u64).ok_or_else(|| "too many bytes".to_owned())
}

fn positive(text: &str) -> Result<u64, String> {
    match size(text)? {
        0 => Err("a number of bytes greater than 0 is wanted".to_owned()),
        size => Ok(size),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let wanted = "a time is wanted, such as 20ms, 0.5s or 300us";
    let (digits, unit) = number(text);
    let unit = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return Err(wanted.to_owned()),
    };
    let seconds = digits.parse::<f64>().map_err(|_| wanted)? * unit;
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if time > LONGEST_TIME => Err("more than an hour".to_owned()),
        // Whole microseconds, so that the words of the plan parse to the same plan.
        Ok(time) if time.as_micros() > 0 => Ok(Duration::from_micros(time.as_micros() as u64)),
        Ok(_) => Err("at least 1us is wanted".to_owned()),
        Err(_) => Err(wanted.to_owned()),
    }
}

fn share(text: &str) -> Result<Share, String> {
    let wanted = "a percentage greater than 0 and at most 100 is wanted, such as 20%";
    let percent = text.strip_suffix('%').filter(|digits| number(digits).1.is_empty());
    let percent: f64 = percent.ok_or(wanted)?.parse().map_err(|_| wanted)?;
    let hundredths = (percent * 100.0).round();
    if (1.0..=10_000.0).contains(&hundredths) {
        Ok(Share(hundredths as u16))
    } else {
        Err(wanted.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plans_that_hold() {
        let plan: Plan =
            "chunk=100, delay=20ms,rate=64k,corrupt-at=0,reset-after=1Ki".parse().unwrap();
        assert_eq!(plan.chunk, Some(100));
        assert_eq!(plan.delay, Duration::from_millis(20));
        assert_eq!(plan.rate, Some(64_000));
        assert_eq!(plan.corrupt_at, Some(0));
        assert_eq!(plan.cut, Some(Cut { after: 1024, how: How::Reset }));
        assert!(plan.for_tcp().is_ok());
        let plan: Plan = "drop=20%,dup=0.5%,reorder=100%,truncate=100,jitter=1.5s".parse().unwrap();
        assert_eq!(plan.drop, Share(2000));
        assert_eq!(plan.dup, Share(50));
        assert_eq!(plan.reorder, Share(10_000));
        assert_eq!(plan.jitter, Duration::from_millis(1500));
        assert!(plan.for_udp().is_ok() && plan.is_random());
    }

    #[test]
    fn plans_that_do_not_hold_name_the_word_and_the_reason() {
        for (text, word, why) in [
            ("", "''", "known are: chunk=BYTES, delay=TIME"),
            ("chunk=100,", "''", "NAME=VALUE"),
            ("chunk", "'chunk'", "NAME=VALUE"),
            ("chnk=100", "'chnk=100'", "no such fault; known are: chunk=BYTES"),
            ("chunk=0", "'chunk=0'", "greater than 0"),
            ("chunk=-1", "'chunk=-1'", "number of bytes"),
            ("chunk=1.5", "'chunk=1.5'", "number of bytes"),
            ("chunk=1kb", "'chunk=1kb'", "number of bytes"),
            ("chunk=99999999999999999999", "'chunk=9", "too many"),
            ("rate=99999999999G", "'rate=9", "too many"),
            ("delay=20", "'delay=20'", "such as 20ms"),
            ("delay=0ms", "'delay=0ms'", "at least 1us"),
            ("delay=2h", "'delay=2h'", "such as 20ms"),
            ("delay=9999s", "'delay=9999s'", "an hour"),
            ("delay=1e9s", "'delay=1e9s'", "such as 20ms"),
            ("delay=ms", "'delay=ms'", "such as 20ms"),
            ("drop=20", "'drop=20'", "such as 20%"),
            ("drop=0%", "'drop=0%'", "greater than 0"),
            ("drop=101%", "'drop=101%'", "at most 100"),
            ("drop=inf%", "'drop=inf%'", "such as 20%"),
            ("hold-tail=2Mi", "'hold-tail=2Mi'", "at most"),
            ("chunk=1,chunk=2", "'chunk=2'", "twice"),
            ("fin-after=1,reset-after=2", "'reset-after=2'", "only one of"),
            ("chunk=1,drop=1%", "'chunk=1'", "'drop=1%' for datagrams"),
        ] {
            let error = text.parse::<Plan>().unwrap_err();
            assert!(error.starts_with(word) && error.contains(why), "{text:?}: {error}");
        }
        assert!("drop=1%".parse::<Plan>().unwrap().for_tcp().unwrap_err().contains("'drop=1%'"));
        assert!(
            "fin-after=0".parse::<Plan>().unwrap().for_udp().unwrap_err().contains("fin-after=0")
        );
    }

    #[test]
    fn every_known_word_is_taken() {
        for (word, _) in WORDS {
            let (name, value) = word.split_once('=').unwrap();
            let value = match value {
                "TIME" => "20ms",
                "PERCENT" => "20%",
                _ => "100",
            };
            let word = format!("{name}={value}");
            let plan: Plan = word.parse().unwrap();
            assert_eq!(plan.to_string(), word);
            assert!(!plan.is_none() && plan.for_tcp().is_ok() | plan.for_udp().is_ok());
        }
    }

    #[test]
    fn the_dice_are_even_and_repeatable() {
        let strikes = |seed| (0..10_000).filter(move |&n| Share(2000).strikes(dice(seed, 1, n)));
        assert!((1800..2200).contains(&strikes(7).count()));
        assert!(strikes(7).eq(strikes(7)));
        assert!(strikes(7).ne(strikes(8)));
    }

    proptest! {
        #[test]
        fn what_is_shown_parses_to_the_same(
            chunk in proptest::option::of(1..1u64 << 40),
            micros in 0..3_600_000_000u64,
            rate in proptest::option::of(1..1u64 << 40),
            hold_tail in proptest::option::of(1..=LONGEST_HOLD),
            after in proptest::option::of((any::<u32>(), 0..3)),
        ) {
            let how = |n| [How::Fin, How::Reset, How::Stall][n as usize];
            let cut = after.map(|(after, n)| Cut { after: after.into(), how: how(n) });
            let delay = Duration::from_micros(micros);
            let plan = Plan { chunk, delay, rate, hold_tail, cut, ..Plan::default() };
            if !plan.is_none() {
                prop_assert_eq!(plan.to_string().parse(), Ok(plan));
            }
        }

        #[test]
        fn any_text_is_taken_or_refused(text in "[a-z=%.,0-9-]{0,30}|\\PC{0,20}") {
            if let Err(error) = text.parse::<Plan>() {
                prop_assert!(!error.is_empty() && !error.contains('\n'));
            }
        }
    }
}
