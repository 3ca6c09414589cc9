/* Z-buffered rasteriser of vertex attributes, from the definition: every pixel centre in the bounding box of a
   triangle is tested by its barycentric coordinates, and the nearest triangle gives it their mean of its corners.

   points (V, 3): x, y in pixels, depth, larger is nearer; attributes (V, channels); triangles (count, 3);
   depths (height, width), filled here; image (height, width, channels), written where a triangle is. */

#include <math.h>

void rasterize(const float *points, const float *attributes, const int *triangles, int count, int channels,
               int height, int width, float *depths, float *image)
{
    for (int i = 0; i < height * width; i++)
        depths[i] = -INFINITY;
    for (int t = 0; t < count; t++) {
        const int *corner = triangles + 3 * t;
        const float *a = points + 3 * corner[0], *b = points + 3 * corner[1], *c = points + 3 * corner[2];
        float area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
        if (area == 0)
            continue;
        int left = (int)ceilf(fmaxf(0, fminf(a[0], fminf(b[0], c[0]))));
        int top = (int)ceilf(fmaxf(0, fminf(a[1], fminf(b[1], c[1]))));
        int right = (int)floorf(fminf(width - 1, fmaxf(a[0], fmaxf(b[0], c[0]))));
        int bottom = (int)floorf(fminf(height - 1, fmaxf(a[1], fmaxf(b[1], c[1]))));
        for (int y = top; y <= bottom; y++)
            for (int x = left; x <= right; x++) {
                float wb = ((x - a[0]) * (c[1] - a[1]) - (y - a[1]) * (c[0] - a[0])) / area;
                float wc = ((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])) / area;
                float wa = 1 - wb - wc;
                if (wa < 0 || wb < 0 || wc < 0)
                    continue;
                float depth = wa * a[2] + wb * b[2] + wc * c[2];
                int pixel = y * width + x;
                if (depth <= depths[pixel])
                    continue;
                depths[pixel] = depth;
                for (int k = 0; k < channels; k++)
                    image[channels * pixel + k] = wa * attributes[channels * corner[0] + k]
                        + wb * attributes[channels * corner[1] + k] + wc * attributes[channels * corner[2] + k];
            }
    }
}
