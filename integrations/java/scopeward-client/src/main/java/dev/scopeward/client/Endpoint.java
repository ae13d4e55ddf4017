package dev.scopeward.client;

import dev.scopeward.client.internal.StaticAddressResolverProvider;
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/**
 * Where the service is, checked.
 *
 * @param target as gRPC wants it
 * @param isTls whether the connection is TLS
 * @param isLocal a loopback address or a unix socket: nothing leaves the machine
 * @param addresses how many addresses were named; 1 for a name, whatever it resolves to
 */
record Endpoint(String target, boolean isTls, boolean isLocal, int addresses) {
    private static final String HINT = "write it as HOST:PORT, http://HOST:PORT, https://HOST:PORT, unix:/PATH or dns:///NAME:PORT";
    private static final Pattern AUTHORITY = Pattern.compile("(\\[[0-9A-Fa-f:.]+]|[A-Za-z0-9._-]+):([0-9]{1,5})/?");
    private static final Pattern IPV4 = Pattern.compile("[0-9]{1,3}(\\.[0-9]{1,3}){3}");

    static Endpoint of(List<String> targets) {
        if (targets.isEmpty()) {
            throw new IllegalArgumentException("no target; " + HINT);
        }
        List<Parsed> parsed = targets.stream().map(Endpoint::parse).toList();
        Parsed first = parsed.get(0);
        if (parsed.size() == 1) {
            String target = first.isUnix ? "unix:" + first.address : "dns:///" + first.address;
            return new Endpoint(target, first.isTls, first.isLocal, 1);
        }
        if (parsed.stream().anyMatch(one -> one.isTls != first.isTls)) {
            throw new IllegalArgumentException("several targets are either all https:// or none");
        }
        if (parsed.stream().anyMatch(one -> !one.isIpAddress)) {
            throw new IllegalArgumentException("several targets have to be IP addresses; for names use one dns:///NAME:PORT that has"
                    + " several addresses");
        }
        String addresses = parsed.stream().map(Parsed::address).collect(Collectors.joining(","));
        return new Endpoint(
                StaticAddressResolverProvider.SCHEME + ":///" + addresses,
                first.isTls,
                parsed.stream().allMatch(Parsed::isLocal),
                parsed.size());
    }

    private record Parsed(String address, boolean isTls, boolean isLocal, boolean isIpAddress, boolean isUnix) {}

    private static Parsed parse(String text) {
        if (text.startsWith("unix:")) {
            String path = text.substring("unix:".length());
            path = path.startsWith("//") ? path.substring(2) : path;
            if (path.isEmpty()) {
                throw new IllegalArgumentException("`" + text + "` has no path; " + HINT);
            }
            return new Parsed(path, false, true, false, true);
        }
        boolean isTls = text.startsWith("https://");
        String rest = text;
        for (String prefix : List.of("https://", "http://", "dns:///")) {
            if (text.startsWith(prefix)) {
                rest = text.substring(prefix.length());
            }
        }
        Matcher matcher = AUTHORITY.matcher(rest);
        if (!matcher.matches()) {
            throw new IllegalArgumentException("`" + text + "` is not a target; " + HINT);
        }
        String host = matcher.group(1);
        int port = Integer.parseInt(matcher.group(2));
        if (port == 0 || port > 65535) {
            throw new IllegalArgumentException("`" + text + "` is not a target: port " + port + " is out of range; " + HINT);
        }
        String address = host + ":" + port;
        if (!host.startsWith("[") && !IPV4.matcher(host).matches()) {
            return new Parsed(address, isTls, host.equalsIgnoreCase("localhost"), false, false);
        }
        try {
            // A literal is not looked up.
            return new Parsed(address, isTls, InetAddress.getByName(host).isLoopbackAddress(), true, false);
        } catch (UnknownHostException error) {
            throw new IllegalArgumentException("`" + text + "` is not a target; " + HINT, error);
        }
    }
}
