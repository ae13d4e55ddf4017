package dev.scopeward.testing;

import java.io.IOException;
import java.math.BigInteger;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.SecureRandom;
import java.security.cert.X509Certificate;
import java.time.Duration;
import java.time.Instant;
import java.util.Base64;
import java.util.Date;
import java.util.List;
import java.util.stream.Stream;
import javax.security.auth.x500.X500Principal;
import org.bouncycastle.asn1.x509.BasicConstraints;
import org.bouncycastle.asn1.x509.Extension;
import org.bouncycastle.asn1.x509.GeneralName;
import org.bouncycastle.asn1.x509.GeneralNames;
import org.bouncycastle.cert.jcajce.JcaX509CertificateConverter;
import org.bouncycastle.cert.jcajce.JcaX509v3CertificateBuilder;
import org.bouncycastle.operator.OperatorCreationException;
import org.bouncycastle.operator.jcajce.JcaContentSignerBuilder;

/** A certificate authority of one test: issues into a folder, each as {@code NAME.pem} and {@code NAME.key}. */
public final class Authority {
    private final Path folder;
    private final KeyPair key;
    private final X500Principal subject;
    private final Path file;

    /**
     * Makes the authority.
     *
     * @param folder where its files go
     * @param name its name
     */
    public Authority(Path folder, String name) {
        this.folder = folder;
        this.subject = new X500Principal("CN=" + name);
        this.key = newKey();
        this.file = write(name + ".pem", "CERTIFICATE", sign(subject, key, List.of(), true));
    }

    /**
     * Returns its own certificate.
     *
     * @return a PEM file
     */
    public Path file() {
        return file;
    }

    /**
     * Issues a certificate.
     *
     * @param name its common name, and that of its files
     * @param hosts DNS names and IP addresses
     * @return the certificate and the key
     */
    public List<Path> issue(String name, String... hosts) {
        KeyPair issued = newKey();
        byte[] certificate = sign(new X500Principal("CN=" + name), issued, List.of(hosts), false);
        return List.of(write(name + ".pem", "CERTIFICATE", certificate),
                write(name + ".key", "PRIVATE KEY", issued.getPrivate().getEncoded()));
    }

    private byte[] sign(X500Principal name, KeyPair pair, List<String> hosts, boolean isAuthority) {
        Instant now = Instant.now();
        JcaX509v3CertificateBuilder builder = new JcaX509v3CertificateBuilder(subject, new BigInteger(127, new SecureRandom()),
                Date.from(now.minus(Duration.ofHours(1))), Date.from(now.plus(Duration.ofDays(30))), name, pair.getPublic());
        try {
            builder.addExtension(Extension.basicConstraints, true, new BasicConstraints(isAuthority));
            if (!hosts.isEmpty()) {
                GeneralName[] names = hosts.stream()
                        .map(host -> new GeneralName(
                                host.matches("[0-9.]+") ? GeneralName.iPAddress : GeneralName.dNSName, host))
                        .toArray(GeneralName[]::new);
                builder.addExtension(Extension.subjectAlternativeName, false, new GeneralNames(names));
            }
            X509Certificate certificate = new JcaX509CertificateConverter()
                    .getCertificate(builder.build(new JcaContentSignerBuilder("SHA256withRSA").build(key.getPrivate())));
            return certificate.getEncoded();
        } catch (IOException | GeneralSecurityException | OperatorCreationException error) {
            throw new IllegalStateException(error);
        }
    }

    private static KeyPair newKey() {
        try {
            // Java writes a key of an elliptic curve without its public part, and the service does not read that.
            KeyPairGenerator generator = KeyPairGenerator.getInstance("RSA");
            generator.initialize(2048);
            return generator.generateKeyPair();
        } catch (GeneralSecurityException error) {
            throw new IllegalStateException(error);
        }
    }

    private Path write(String name, String label, byte[] content) {
        try {
            String text = Base64.getMimeEncoder(64, new byte[] {'\n'}).encodeToString(content);
            return Files.writeString(folder.resolve(name),
                    Stream.of("-----BEGIN " + label + "-----", text, "-----END " + label + "-----", "")
                            .reduce((a, b) -> a + "\n" + b).orElseThrow());
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
    }
}
