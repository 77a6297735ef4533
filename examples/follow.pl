#!/usr/bin/perl
# The bus from another language, with the plain commands: a lease, the newest quote from the cache, then the stream from
# its id on. Perl with nothing but IO::Socket, which every Debian has; RESP, Redis' protocol, is the function `reply`.
#
# perl examples/follow.pl 127.0.0.1 6379 AAPL 10        # ten entries, then it ends

use strict;
use warnings;
use IO::Socket::INET;

@ARGV >= 3 or die "usage: perl examples/follow.pl HOST PORT SYMBOL [COUNT]\n";
my ($host, $port, $symbol, $count) = @ARGV;
my $redis = IO::Socket::INET->new(PeerAddr => $host, PeerPort => $port, Timeout => 5)
    or die "Redis at $host:$port cannot be reached: $!\n";
$redis->autoflush(1);
$| = 1;

sub reply {    # one reply of RESP2: text, number, nothing, or a list of replies
    my $line = <$redis> // die "Redis closed the connection\n";
    $line =~ s/\r\n$//;
    my ($kind, $rest) = (substr($line, 0, 1), substr($line, 1));
    die "Redis: $rest\n" if $kind eq '-';
    return $rest if $kind eq '+' or $kind eq ':';
    return undef if $rest < 0;
    return [map { reply() } 1 .. $rest] if $kind eq '*';
    read($redis, my $text, $rest + 2) == $rest + 2 or die "Redis closed the connection\n";
    return substr($text, 0, $rest);
}

sub ask {
    print $redis '*' . @_ . "\r\n", map { '$' . length($_) . "\r\n$_\r\n" } @_;
    return reply();
}

sub show {
    my ($id, $field, $value) = @_;
    if ($field eq 'gap') {    # {"from":ns,"to":ns,"reason":"...","epoch":7}
        my ($reason) = $value =~ /"reason":"(\w+)"/;
        print "$symbol $id gap $reason\n";
    } else {                  # [bid, size, exchange, ask, size, exchange, conditions, tape, time, delay]
        my ($bid, $ask) = $value =~ /^\[([^,]+),[^,]+,(?:"[^"]*"|null),([^,]+),/;
        print "$symbol $id $bid x $ask\n";
    }
}

my $me = "$symbol\@follow.pl-$$";
my $leased_until = 0;

sub lease {    # wanted for 15 s more, by the server's clock
    my $now = ask('TIME')->[0];
    return if $leased_until - $now > 10;
    $leased_until = $now + 15;
    ask('ZADD', 'quotes:interest', $leased_until * 1000, $me);
}

my $done = 0;
$SIG{INT} = $SIG{TERM} = sub { $done = 1 };
lease();
my $last = '$';
if (my $cached = ask('HGET', 'quotes:latest', $symbol)) {
    my ($bid) = $cached =~ /"bp":([^,]+)/;
    my ($ask) = $cached =~ /"ap":([^,]+)/;
    ($last) = $cached =~ /"id":"([\d-]+)"/;
    print "$symbol $last $bid x $ask (cache)\n";
}
# Where nothing is cached, begin after what the stream holds now: `$` is only right for the first question.
$last = (ask('XREVRANGE', "quotes:stream:$symbol", '+', '-', 'COUNT', 1)->[0] // ['0-0'])->[0] if $last eq '$';
until ($done) {
    lease();
    my $found = ask('XREAD', 'COUNT', 100, 'BLOCK', 1000, 'STREAMS', "quotes:stream:$symbol", $last) or next;
    for my $entry (@{ $found->[0][1] }) {
        $last = $entry->[0];
        show($last, @{ $entry->[1] });
        $done = 1, last if defined $count and --$count <= 0;
    }
}
ask('ZREM', 'quotes:interest', $me);
