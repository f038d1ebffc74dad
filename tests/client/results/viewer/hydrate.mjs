// Reads an SR with the code by which viewers built on Cornerstone make measurements of it, and
// prints them as JSON: by tool, each with its finding, numbers, image and points in the patient.
// Usage: node hydrate.mjs FOLDER-OF-MODULES REPORT SOURCE...
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [folder, report, ...sources] = process.argv.slice(2);
const require = createRequire(`${folder}/package.json`);
const load = async (name, file = '') => import(
  pathToFileURL(file ? `${folder}/node_modules/${name}/${file}` : require.resolve(name)));
console.log = console.info = console.warn = console.debug = () => {};
const { adaptersSR } = await load('@cornerstonejs/adapters', 'dist/esm/index.js');
const { metaData } = await load('@cornerstonejs/core', 'dist/esm/index.js');
const dcmjs = (await load('dcmjs')).default;

function dataset(path) {
  const bytes = readFileSync(path);
  const file = dcmjs.data.DicomMessage.readFile(
    bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  return dcmjs.data.DicomMetaDictionary.naturalizeDataset(file.dict);
}

const planes = {};
const images = {};
for (const path of sources) {
  const image = dataset(path);
  for (let frame = 1; frame <= (image.NumberOfFrames ?? 1); frame += 1) {
    const id = `${image.SOPInstanceUID}:${frame}`;
    images[id] = id;
    const [x, y] = [image.ImageOrientationPatient?.slice(0, 3), image.ImageOrientationPatient?.slice(3)];
    planes[id] = {
      frameOfReferenceUID: image.FrameOfReferenceUID,
      rows: image.Rows,
      columns: image.Columns,
      rowCosines: x ?? [1, 0, 0],
      columnCosines: y ?? [0, 1, 0],
      imagePositionPatient: image.ImagePositionPatient ?? [0, 0, 0],
      rowPixelSpacing: image.PixelSpacing?.[0] ?? 1,
      columnPixelSpacing: image.PixelSpacing?.[1] ?? 1,
    };
  }
}
const provider = (kind, id) => (kind === 'imagePlaneModule' ? planes[id] : undefined);
metaData.addProvider(provider);
const state = adaptersSR.Cornerstone3D.MeasurementReport.generateToolState(
  dataset(report), images, { get: provider });
const found = {};
for (const [tool, measurements] of Object.entries(state)) {
  found[tool] = measurements.map(one => ({
    finding: one.finding?.CodeMeaning,
    label: one.commentGroup?.TextValue,
    tracking: one.TrackingUniqueIdentifier,
    image: one.annotation.metadata.referencedImageId,
    points: (one.annotation.data.contour?.polyline ?? one.annotation.data.handles.points)
      .map(point => Array.from(point)),
    stats: Object.values(one.annotation.data.cachedStats ?? {})[0],
  }));
}
process.stdout.write(`${JSON.stringify(found)}\n`);
