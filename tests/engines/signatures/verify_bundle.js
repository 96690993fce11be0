// node verify_bundle.js BUNDLE KEY.pub: verifies a bundle as npm and other programs with this library do. Prints the SHA-256
// of the image that it is about.
//
// There is a key and no transparency log: nothing else is required.
const fs = require("fs");
const { bundleFromJSON } = require("@sigstore/bundle");
const { Verifier, toSignedEntity, toTrustMaterial } = require("@sigstore/verify");
const { createPublicKey } = require("crypto");

const [bundleFile, keyFile] = process.argv.slice(2);
try {
  const bundle = bundleFromJSON(JSON.parse(fs.readFileSync(bundleFile)));
  const rawBytes = createPublicKey(fs.readFileSync(keyFile)).export({ format: "der", type: "spki" });
  const publicKey = () => ({ publicKey: createPublicKey({ key: rawBytes, format: "der", type: "spki" }), validFor: () => true });
  const root = { certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [] };
  const verifier = new Verifier(toTrustMaterial(root, publicKey), { ctlogThreshold: 0, tlogThreshold: 0, timestampThreshold: 0 });
  verifier.verify(toSignedEntity(bundle));
  const statement = JSON.parse(bundle.content.dsseEnvelope.payload);
  console.log(statement.subject[0].digest.sha256);
} catch (error) {
  console.error(error.code, error.message);
  process.exitCode = 1;
}
