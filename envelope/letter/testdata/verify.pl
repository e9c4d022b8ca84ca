# Reads names of files, and says of each whether its signatures hold. The argument
# is a file with the names and texts of DNS records.
use strict; use warnings;
use Mail::DKIM::Verifier; use Mail::DKIM::DNS; use Net::DNS::RR;
my %records;
open my $dns, '<', $ARGV[0] or die $!;
while (<$dns>) { chomp; my ($name, $record) = split / /, $_, 2; $records{$name} = $record }
no warnings 'redefine';
*Mail::DKIM::DNS::query = sub {
    my ($name, $type) = @_;
    $name =~ s/\.$//;
    return () unless $type eq 'TXT' && $records{$name};
    return Net::DNS::RR->new(owner => $name, type => 'TXT', txtdata => [$records{$name} =~ /(.{1,255})/g]);
};
while (my $file = <STDIN>) {
    chomp $file;
    open my $in, '<:raw', $file or die $!;
    my $verifier = Mail::DKIM::Verifier->new;
    local $/;
    $verifier->PRINT(<$in>);
    $verifier->CLOSE;
    print $verifier->result eq 'pass' ? 'pass' : 'fail', " $file\n";
}
